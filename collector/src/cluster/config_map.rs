//! Follows the ConfigMap that holds the configuration.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use spanloom_crds::agent::{COLLECTORS_KEY, CONFIG_KEY};
use spanloom_program::causes;

use super::Cluster;
use super::live::Live;

/// Never ends by itself: a watch that breaks begins anew after a pause.
pub(super) async fn follow(cluster: Cluster, live: Arc<Live>) {
    let Cluster {
        client,
        namespace,
        name,
        ..
    } = cluster;
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let mut objects = pin!(watcher::watch_object(api, &name).default_backoff());
    while let Some(object) = objects.next().await {
        match object {
            Ok(Some(object)) => {
                let data = object.data.unwrap_or_default();
                live.share(data.get(COLLECTORS_KEY).map(String::as_str));
                match data.get(CONFIG_KEY) {
                    Some(text) => live.take(text),
                    None => live.refuse(
                        None,
                        format!(
                            "the ConfigMap {namespace}/{name} does not have the key {CONFIG_KEY}"
                        ),
                    ),
                }
            }
            Ok(None) => live.missing(format!("the ConfigMap {namespace}/{name} does not exist")),
            Err(error) => live.broken(format!(
                "cannot watch the ConfigMap {namespace}/{name}: {}",
                causes(&error)
            )),
        }
    }
}
