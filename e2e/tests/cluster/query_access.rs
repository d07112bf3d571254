//! The query service with TLS and tokens: 401 and nothing else for those without one.

use serde_json::json;

use super::support::install;
use super::support::kube::apply;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

#[test]
fn without_a_token_nothing_is_answered() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "people", "namespace": namespace.name()},
        "stringData": {"anna": "token-of-anna", "ben": "token-of-ben\n"},
    }));
    let spec = json!({"query": {"auth": {"tokensSecret": {"name": "people"}}}});
    let pipeline = Pipeline::ready(&namespace, &spec);
    let url = pipeline.query_url();
    let ask = |path: &str, token: Option<&str>| {
        let header = token.map(|token| format!("Authorization: Bearer {token}"));
        let options: Vec<&str> = header
            .iter()
            .flat_map(|h| ["--header", h.as_str()])
            .collect();
        pipeline.fetch(&format!("{url}{path}"), &options)
    };
    let list = "/api/v1/services";
    for path in [
        list,
        "/",
        "/ui/",
        "/api/v1/search",
        "/metrics",
        "/api/v1/openapi.json",
        "/none",
    ] {
        for token in [None, Some("token-of-nobody"), Some("")] {
            let answer = ask(path, token).unwrap();
            assert_eq!(answer.status, 401, "{path} with {token:?}: {answer:?}");
            let challenge = answer.headers["www-authenticate"].as_str();
            assert!(
                challenge.is_some_and(|text| text.starts_with("Bearer")),
                "{answer:?}"
            );
            assert!(!answer.body.contains("token-of"), "{answer:?}");
        }
    }
    for token in ["token-of-anna", "token-of-ben"] {
        let answer = ask(list, Some(token)).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(ask("/healthz", None).unwrap().status, 200);

    // A token that is taken away is refused, without a restart.
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "people", "namespace": namespace.name()},
        "stringData": {"anna": "another-token", "ben": "token-of-ben\n"},
    }));
    await_some("an end of the old token", LIMIT, || {
        let old = ask(list, Some("token-of-anna"))?;
        let new = ask(list, Some("another-token"))?;
        want(old.status == 401 && new.status == 200, || {
            format!("{old:?} {new:?}")
        })
    });
    // The new Secret does not exist: the earlier pods keep serving, and the pipeline is not Ready.
    pipeline.apply(&json!({"query": {"auth": {"tokensSecret": {"name": "nobodys"}}}}));
    let cause = "secret \"nobodys\" not found";
    await_some("the cause in the condition", LIMIT, || {
        let rolling = pipeline.await_condition("QueryReady", "False", Some("RollingOut"));
        let message = rolling["message"].as_str().unwrap_or_default();
        want(
            message.contains(": pod traces-query-") && message.contains(cause),
            || message.to_owned(),
        )
    });
    let ready = pipeline.await_condition("Ready", "False", Some("ApplyFailed"));
    let message = ready["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("the Secret nobodys does not exist"),
        "{message}"
    );
    assert_eq!(ask(list, None).unwrap().status, 401);
    assert_eq!(ask(list, Some("another-token")).unwrap().status, 200);
    pipeline.apply(&spec);
    pipeline.await_ready();
}
