//! What each account may and may not, tried as that account on the real API.
//!
//! Two ways: the whole list of its rules is compared with what is meant to be in it (`operator/rbac.md`), so
//! that one more right is noticed; and real requests, those that write as dry runs, which pass through all the same
//! checks. Accounts are taken from the pods that run: a name that nobody has would be refused everything.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::install;
use super::support::kube::{apply, kubectl, try_get, try_kubectl};
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;

/// A service account.
struct Account {
    namespace: String,
    name: String,
}

impl Account {
    /// That of the pods with a component's label, which must all have the same.
    fn of(namespace: &str, component: &str) -> Self {
        let pods = pods_of(namespace, component);
        let names: BTreeSet<_> = pods
            .iter()
            .map(|pod| pod["spec"]["serviceAccountName"].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), 1, "{component} has the accounts {names:?}");
        Self {
            namespace: namespace.to_owned(),
            name: (*names.first().unwrap()).to_owned(),
        }
    }

    /// kubectl as this account.
    fn run(&self, words: &str, document: Option<&Value>) -> Result<String, String> {
        let user = format!(
            "--as=system:serviceaccount:{}:{}",
            self.namespace, self.name
        );
        let mut arguments: Vec<_> = words.split(' ').collect();
        arguments.insert(0, &user);
        try_kubectl(&arguments, document.map(Value::to_string).as_deref())
    }

    #[track_caller]
    fn may(&self, words: &str) {
        if let Err(error) = self.run(words, None) {
            panic!("{} should be allowed to `{words}`: {error}", self.name);
        }
    }

    #[track_caller]
    fn may_not(&self, words: &str) {
        self.refused(words, self.run(words, None));
    }

    /// Whether it may make an object.
    #[track_caller]
    fn may_create(&self, document: &Value) {
        if let Err(error) = self.run(CREATE, Some(document)) {
            panic!(
                "{} should be allowed to make {document}: {error}",
                self.name
            );
        }
    }

    #[track_caller]
    fn may_not_create(&self, document: &Value) {
        self.refused(&document.to_string(), self.run(CREATE, Some(document)));
    }

    #[track_caller]
    fn refused(&self, what: &str, said: Result<String, String>) {
        match said {
            Ok(said) => panic!("{} was allowed to `{what}`: {said}", self.name),
            // Refused by the API server, and not for another reason, such as that there is no such object.
            Err(error) => {
                let user = format!("user \"system:serviceaccount:{}", self.namespace);
                let error = error.to_lowercase();
                let is_refused = error.contains(&format!("is forbidden: {user}"));
                assert!(is_refused && !error.contains("validating"), "{error}");
            }
        }
    }

    /// Whether its rules in a namespace are these, and no more.
    #[track_caller]
    fn has_rules(&self, namespace: &str, wanted: &BTreeSet<String>) {
        let found = self.rules(namespace);
        let (more, less) = (&found - wanted, wanted - &found);
        assert!(
            more.is_empty() && less.is_empty(),
            "{} may {more:?} too much in {namespace}, and lacks {less:?}",
            self.name
        );
    }

    /// Everything that it may in a namespace and nobody else's account may, as `verb resource.group/name`.
    fn rules(&self, namespace: &str) -> BTreeSet<String> {
        let nobody = Self {
            namespace: self.namespace.clone(),
            name: "nobody".to_owned(),
        };
        let everybodys = nobody.all_rules(namespace);
        &self.all_rules(namespace) - &everybodys
    }

    fn all_rules(&self, namespace: &str) -> BTreeSet<String> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        });
        let said = self.run(
            "create --validate=ignore --output=json --filename=-",
            Some(&review),
        );
        let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut all = BTreeSet::new();
        for rule in said["status"]["resourceRules"].as_array().unwrap() {
            let mut names = texts(&rule["resourceNames"]);
            if names.is_empty() {
                names.push(String::new());
            }
            for verb in texts(&rule["verbs"]) {
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for name in &names {
                            let group = join(".", &group);
                            let name = join("/", name);
                            all.insert(format!("{verb} {resource}{group}{name}"));
                        }
                    }
                }
            }
        }
        assert!(!all.is_empty(), "everybody may something: {said}");
        all
    }
}

/// Without kubectl's own checks, which read what an account may not.
const CREATE: &str = "create --validate=ignore --dry-run=server --filename=-";

fn join(separator: &str, text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("{separator}{text}"),
    }
}

fn pods_of(namespace: &str, component: &str) -> Vec<Value> {
    let selector = format!(
        "--selector=app.kubernetes.io/name=spanloom,app.kubernetes.io/component={component}"
    );
    let pods = try_get(namespace, &["pods", &selector]).unwrap();
    let pods = pods["items"].as_array().unwrap().clone();
    assert!(!pods.is_empty(), "no pod of {component} in {namespace}");
    pods
}

/// Whether a pod is handed its account's token.
fn has_token(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes
        .filter_map(|volume| volume["projected"]["sources"].as_array())
        .flatten()
        .any(|source| source.get("serviceAccountToken").is_some())
}

/// Each verb of the first with each resource of the second, of every line.
fn expand(lines: &[(&str, &str)]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (verbs, resources) in lines {
        for verb in verbs.split(' ') {
            all.extend(resources.split(' ').map(|r| format!("{verb} {r}")));
        }
    }
    all
}

/// What the operator may everywhere.
const EVERYWHERE: &[(&str, &str)] = &[
    ("get list watch", "tracingpipelines.spanloom.dev"),
    ("get patch", "tracingpipelines/status.spanloom.dev"),
    ("create patch", "events.events.k8s.io"),
    ("get list watch", "nodes"),
    ("list watch", "pods namespaces"),
    (
        "get patch",
        "customresourcedefinitions.apiextensions.k8s.io/tracingpipelines.spanloom.dev \
         mutatingwebhookconfigurations.admissionregistration.k8s.io/spanloom-webhook \
         clusterrolebindings.rbac.authorization.k8s.io/spanloom-collectors",
    ),
    (
        "bind",
        "clusterroles.rbac.authorization.k8s.io/spanloom-collector",
    ),
];

/// What it may besides where pipelines are served.
const WHERE_SERVED: &[(&str, &str)] = &[
    (
        "get list watch create patch delete",
        "configmaps services serviceaccounts daemonsets.apps deployments.apps statefulsets.apps \
         jobs.batch poddisruptionbudgets.policy networkpolicies.networking.k8s.io \
         roles.rbac.authorization.k8s.io \
         rolebindings.rbac.authorization.k8s.io grafanadatasources.grafana.integreatly.org",
    ),
    ("get create patch delete", "secrets"),
    ("get list watch", "pods"),
    ("list", "events"),
    ("get patch", "persistentvolumeclaims"),
];

/// What it may besides in its own namespace.
const AT_HOME: &[(&str, &str)] = &[
    (
        "get patch update",
        "leases.coordination.k8s.io/spanloom-operator",
    ),
    ("create", "leases.coordination.k8s.io"),
];

fn role(namespace: &str, resource: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "more", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["list"]}],
    })
}

/// A binding of somebody to a ClusterRole.
fn binding(namespace: Option<&str>, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
        "metadata": {"name": "more", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "traces-query", "namespace": "default"}],
    })
}

#[test]
fn every_account_may_what_it_needs_and_nothing_else() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    Pipeline::applied(&namespace, &json!({})).await_ready();
    let here = namespace.name();
    let foreign = Namespace::new("foreign");
    let elsewhere = foreign.name();
    for (namespace, name) in [(elsewhere, "theirs"), (here, "others-collector")] {
        apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}},
        ]}));
    }

    operator(here, elsewhere);
    webhook(here, elsewhere);
    collector(here, elsewhere);
    for component in ["query", "clickhouse", "migrate"] {
        let account = Account::of(here, component);
        for namespace in [here, elsewhere] {
            account.has_rules(namespace, &BTreeSet::new());
        }
        for pod in pods_of(here, component) {
            assert!(!has_token(&pod), "{component} has a token: {pod}");
        }
        // Who it is taken for, and that it gets answers at all.
        let said = account.run("auth whoami --output=json", None).unwrap();
        assert!(said.contains(&account.name), "{said}");
        for words in [
            format!("get pods -n {here}"),
            format!("get secret traces-clickhouse -n {here}"),
            format!("get configmap traces-collector -n {here}"),
            format!("get tracingpipelines -n {here}"),
            "get nodes".to_owned(),
            "get namespaces".to_owned(),
        ] {
            account.may_not(&words);
        }
        nobody_may(&account, here, elsewhere);
    }
}

/// What no account of ours may.
fn nobody_may(account: &Account, here: &str, elsewhere: &str) {
    for words in [
        "get secrets -A".to_owned(),
        format!("get secrets -n {here}"),
        format!("get secrets -n {}", install::NAMESPACE),
        format!("get secret theirs -n {elsewhere}"),
        format!("get configmap theirs -n {elsewhere}"),
        format!("exec -n {here} traces-clickhouse-0 -- true"),
        "delete nodes --all --dry-run=server".to_owned(),
        "get mutatingwebhookconfigurations".to_owned(),
        "delete mutatingwebhookconfiguration spanloom-webhook --dry-run=server".to_owned(),
        format!("delete persistentvolumeclaim data-traces-clickhouse-0 -n {here} --dry-run=server"),
        format!("delete pod traces-clickhouse-0 -n {here} --dry-run=server"),
        format!("delete tracingpipeline traces -n {here} --dry-run=server"),
        format!("create token traces-collector -n {here}"),
    ] {
        account.may_not(&words);
    }
    for document in [
        role(here, "secrets"),
        binding(Some(here), "cluster-admin"),
        binding(None, "cluster-admin"),
        binding(None, "spanloom-collector"),
    ] {
        account.may_not_create(&document);
    }
}

fn operator(here: &str, elsewhere: &str) {
    let home = install::NAMESPACE;
    let account = Account::of(home, "operator");
    let (everywhere, served) = (expand(EVERYWHERE), expand(WHERE_SERVED));
    let here_too = &everywhere | &served;
    account.has_rules(elsewhere, &everywhere);
    account.has_rules(here, &here_too);
    account.has_rules(home, &(&here_too | &expand(AT_HOME)));

    account.may("get tracingpipelines -A");
    account.may(&format!("get secret traces-clickhouse -n {here}"));
    account.may(&format!("get pods -n {here}"));
    account.may(&format!("get lease spanloom-operator -n {home}"));
    account.may(&format!(
        "get persistentvolumeclaim data-traces-clickhouse-0 -n {here}"
    ));
    account.may("get clusterrolebinding spanloom-collectors");
    account.may("get nodes");
    // It may hand on what it has itself, and bind the one role that it is told.
    account.may_create(&role(here, "configmaps"));
    account.may_create(&binding(Some(here), "spanloom-collector"));
    account.may_not_create(&role(elsewhere, "configmaps"));
    account.may("get mutatingwebhookconfiguration spanloom-webhook");
    account.may_not("get clusterrolebindings");
    account.may_not("get clusterrolebinding cluster-admin");
    account.may(&format!("get pods -n {elsewhere}"));
    nobody_may(&account, here, elsewhere);
}

fn webhook(here: &str, elsewhere: &str) {
    let account = Account::of(install::NAMESPACE, "webhook");
    let everywhere = expand(&[("list watch", "tracingpipelines.spanloom.dev namespaces")]);
    for namespace in [here, elsewhere, install::NAMESPACE] {
        account.has_rules(namespace, &everywhere);
    }
    account.may("get namespaces");
    for words in [
        format!("get pods -n {here}"),
        format!("get configmaps -n {here}"),
        format!("get secret spanloom-webhook-tls -n {}", install::NAMESPACE),
        format!("label namespace {here} a=b --dry-run=server"),
        "get mutatingwebhookconfiguration spanloom-webhook".to_owned(),
    ] {
        account.may_not(&words);
    }
    nobody_may(&account, here, elsewhere);
}

fn collector(here: &str, elsewhere: &str) {
    let account = Account::of(here, "collector");
    let pods = expand(&[("get list watch", "pods")]);
    let own = expand(&[("get list watch", "configmaps/traces-collector")]);
    account.has_rules(elsewhere, &pods);
    account.has_rules(here, &(&pods | &own));
    assert!(pods_of(here, "collector").iter().all(has_token));

    account.may(&format!("get configmap traces-collector -n {here}"));
    let node = kubectl(&[
        "get",
        "nodes",
        "--output=jsonpath={.items[0].metadata.name}",
    ]);
    account.may(&format!(
        "get pods -A --field-selector=spec.nodeName={node}"
    ));
    for words in [
        format!("get configmaps -n {here}"),
        // Another pipeline's in the same namespace.
        format!("get configmap others-collector -n {here}"),
        format!("get secret traces-clickhouse -n {here}"),
        format!("delete configmap traces-collector -n {here} --dry-run=server"),
        format!("get tracingpipelines -n {here}"),
        "get nodes".to_owned(),
        "get namespaces".to_owned(),
        "get clusterrolebinding spanloom-collectors".to_owned(),
    ] {
        account.may_not(&words);
    }
    nobody_may(&account, here, elsewhere);
}
