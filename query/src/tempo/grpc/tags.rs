//! `SearchTags`, `SearchTagValues` and their second versions. A client adds the messages up.

use std::sync::Arc;

use super::messages::{
    MetadataMetrics, SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response,
    SearchTagsRequest, SearchTagsResponse, SearchTagsV2Response, TagScope, TagValue,
};
use super::packets::{ITEMS_BYTES_MAX, Packets};
use super::queue::{Ended, Queue, Stop};
use super::{Method, given};
use crate::app::App;
use crate::tempo::{tags, values};

/// A list is one job.
const JOBS: u32 = 1;

/// Why keys or values are left out.
const TOO_LARGE: &str = "a value is too large for a message";

/// The keys that can be searched for.
pub struct Tags;

/// The keys, by scope.
pub struct TagsV2;

/// The values of a key.
pub struct Values;

/// The values of a key, with their types.
pub struct ValuesV2;

impl Method for Tags {
    type Asked = SearchTagsRequest;
    type Answer = SearchTagsResponse;

    async fn run(
        app: Arc<App>,
        asked: SearchTagsRequest,
        queue: Queue<SearchTagsResponse>,
    ) -> Result<Ended, Stop> {
        let scopes = tags::scopes(&app, &given::tags(asked)?).await?;
        let packets = Packets::of(tags::without_scopes(scopes));
        send(&queue, packets, |tag_names, metrics| SearchTagsResponse {
            tag_names,
            metrics,
        })
        .await
    }
}

impl Method for TagsV2 {
    type Asked = SearchTagsRequest;
    type Answer = SearchTagsV2Response;

    async fn run(
        app: Arc<App>,
        asked: SearchTagsRequest,
        queue: Queue<SearchTagsV2Response>,
    ) -> Result<Ended, Stop> {
        let scopes = tags::scopes(&app, &given::tags(asked)?).await?;
        let mut left_out = false;
        let mut pieces = Vec::new();
        for (name, tags) in scopes {
            // Half of a message, so that the scope around them fits as well.
            let packets = Packets::within(tags, ITEMS_BYTES_MAX / 2);
            left_out |= packets.left_out;
            pieces.extend(packets.parts.into_iter().map(|tags| TagScope {
                name: name.to_owned(),
                tags,
            }));
        }
        let mut packets = Packets::of(pieces);
        packets.left_out |= left_out;
        send(&queue, packets, |scopes, metrics| SearchTagsV2Response {
            scopes,
            metrics,
        })
        .await
    }
}

impl Method for Values {
    type Asked = SearchTagValuesRequest;
    type Answer = SearchTagValuesResponse;

    async fn run(
        app: Arc<App>,
        asked: SearchTagValuesRequest,
        queue: Queue<SearchTagValuesResponse>,
    ) -> Result<Ended, Stop> {
        let (name, params) = given::values(asked)?;
        let values = values::values(&app, &name, &params).await?;
        let packets = Packets::of(values::without_types(values));
        send(&queue, packets, |tag_values, metrics| {
            SearchTagValuesResponse {
                tag_values,
                metrics,
            }
        })
        .await
    }
}

impl Method for ValuesV2 {
    type Asked = SearchTagValuesRequest;
    type Answer = SearchTagValuesV2Response;

    async fn run(
        app: Arc<App>,
        asked: SearchTagValuesRequest,
        queue: Queue<SearchTagValuesV2Response>,
    ) -> Result<Ended, Stop> {
        let (name, params) = given::values(asked)?;
        let values = values::values(&app, &name, &params).await?;
        let packets = Packets::of(values.into_iter().map(|(kind, value)| TagValue {
            r#type: kind.to_owned(),
            value,
        }));
        send(&queue, packets, |tag_values, metrics| {
            SearchTagValuesV2Response {
                tag_values,
                metrics,
            }
        })
        .await
    }
}

async fn send<T: prost::Message, M>(
    queue: &Queue<M>,
    packets: Packets<T>,
    message: impl Fn(Vec<T>, Option<MetadataMetrics>) -> M,
) -> Result<Ended, Stop> {
    let partial = packets.left_out.then(|| TOO_LARGE.to_owned());
    let jobs = JOBS - u32::from(partial.is_some());
    for (part, completed_jobs) in packets.with_progress(jobs) {
        let metrics = MetadataMetrics {
            total_jobs: JOBS,
            completed_jobs,
        };
        queue.send(message(part, Some(metrics))).await?;
    }
    Ok(Ended { partial })
}
