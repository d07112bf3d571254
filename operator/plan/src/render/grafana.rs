//! Grafana's data source: an object of the Grafana operator for the instances that the spec selects, else a
//! labelled ConfigMap for the loader beside Grafana, or a Secret when it holds a token.

use serde_json::{Value, json};
use spanloom_crds::LabelSelector;

use super::{Desired, Known, Stage, common};
use crate::pipeline::Pipeline;

/// A token of the query service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The Secret's key.
    pub key: String,
    /// The token.
    pub value: String,
}

pub(super) fn grafana(pipeline: &Pipeline, known: &Known) -> Option<Desired> {
    // Without its token a data source would only show errors.
    let has_token = pipeline.spec.query.auth.is_none() || known.token.is_some();
    if !wants_data_source(pipeline) || !has_token {
        return None;
    }
    let object = match &pipeline.spec.grafana.instance_selector {
        Some(selector) if known.grafana_operator => custom_resource(pipeline, known, selector),
        _ => provisioning(pipeline, known),
    };
    Some(Desired::new(Stage::Query, object))
}

/// Whether the pipeline has a data source: unless the spec says no.
pub fn wants_data_source(pipeline: &Pipeline) -> bool {
    pipeline.spec.grafana.datasources.unwrap_or(true)
}

/// The query service's URL inside the cluster.
pub(crate) fn query_url(pipeline: &Pipeline) -> String {
    let scheme = if pipeline.spec.query.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let name = pipeline.object("query");
    format!("{scheme}://{name}.{}.svc:3200", pipeline.namespace)
}

fn data_source(pipeline: &Pipeline, known: &Known, token: Option<&str>) -> Value {
    let name = format!("{}/{}", pipeline.namespace, pipeline.name);
    let mut source = json!({
        "name": format!("Spanloom {name}"),
        "uid": format!("spanloom-{}", crate::hash::hash_of(&pipeline.uid)),
        "type": "tempo", "access": "proxy",
        "url": format!("{}/tempo", query_url(pipeline)),
        "jsonData": {},
    });
    if let Some(token) = token {
        source["jsonData"]["httpHeaderName1"] = json!("Authorization");
        source["secureJsonData"]["httpHeaderValue1"] = json!(format!("Bearer {token}"));
    }
    if let Some(ca) = known
        .query_ca
        .as_ref()
        .filter(|_| pipeline.spec.query.tls.is_some())
    {
        source["jsonData"]["tlsAuthWithCACert"] = json!(true);
        source["secureJsonData"]["tlsCACert"] = json!(ca);
    }
    source
}

fn provisioning(pipeline: &Pipeline, known: &Known) -> Value {
    let token = known.token.as_ref().map(|token| token.value.as_str());
    let source = data_source(pipeline, known, token);
    let file = json!({"apiVersion": 1, "datasources": [source]});
    let text = serde_yaml::to_string(&file).unwrap_or_default();
    let mut metadata = common::metadata(pipeline, "grafana-datasource", "grafana");
    metadata["labels"]["grafana_datasource"] = json!("1");
    let name = format!("spanloom-{}-{}.yaml", pipeline.namespace, pipeline.name);
    match token {
        None => json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {name: text},
        }),
        Some(_) => json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque",
            "data": common::secret_data(&[(&name, &text)]),
        }),
    }
}

fn custom_resource(pipeline: &Pipeline, known: &Known, selector: &LabelSelector) -> Value {
    // The token stays in its Secret: the Grafana operator reads it there.
    let reference = known
        .token
        .as_ref()
        .map(|token| format!("${{{}}}", token.key));
    let mut spec = json!({
        "instanceSelector": selector,
        "allowCrossNamespaceImport": true,
        "datasource": data_source(pipeline, known, reference.as_deref()),
    });
    if let (Some(auth), Some(token)) = (&pipeline.spec.query.auth, &known.token) {
        spec["valuesFrom"] = json!([{
            "targetPath": "secureJsonData.httpHeaderValue1",
            "valueFrom": {"secretKeyRef": {"name": auth.tokens_secret.name, "key": token.key}},
        }]);
    }
    json!({
        "apiVersion": "grafana.integreatly.org/v1beta1", "kind": "GrafanaDatasource",
        "metadata": common::metadata(pipeline, "grafana-datasource", "grafana"),
        "spec": spec,
    })
}
