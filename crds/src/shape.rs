//! Every field that the document has, the ones that are not built yet among them, and a walk that
//! finds what does not fit.

use serde_yaml::Value;

use crate::errors::{Path, Problem};

/// What stands in a place.
#[derive(Debug)]
pub(crate) enum Shape {
    Object(&'static [Field]),
    /// Any keys, their values text.
    Texts,
    List(&'static Shape),
    Text,
    Number,
    /// A whole number, not negative.
    Count,
    /// True or false.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any keys, their values sizes.
    Sizes,
    /// A size, as text or number.
    Size,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// `None`: part of the design, not built yet.
    pub(crate) shape: Option<Shape>,
    required: bool,
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape: Some(shape),
        required: false,
    }
}

const fn required(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        shape: Some(shape),
        required: true,
    }
}

const fn later(name: &'static str) -> Field {
    Field {
        name,
        shape: None,
        required: false,
    }
}

pub(crate) const DOCUMENT: Shape = Shape::Object(&[
    required("apiVersion", Shape::Text),
    required("kind", Shape::Text),
    field("metadata", Shape::Object(METADATA)),
    field("spec", Shape::Object(SPEC)),
    later("status"),
]);

const METADATA: &[Field] = &[
    field("name", Shape::Text),
    field("namespace", Shape::Text),
    field("labels", Shape::Texts),
    field("annotations", Shape::Texts),
];

const SPEC: &[Field] = &[
    field("processing", Shape::Object(PROCESSING)),
    field("sampling", Shape::Object(SAMPLING)),
    field("storage", Shape::Object(STORAGE)),
    field("enabled", Shape::Switch),
    field("managementState", Shape::Word(&["Managed", "Unmanaged"])),
    field("collector", Shape::Object(COLLECTOR)),
    field("query", Shape::Object(QUERY)),
    field(
        "grafana",
        Shape::Object(&[
            field("datasources", Shape::Switch),
            later("dashboards"),
            later("alerts"),
        ]),
    ),
    field("images", Shape::Object(IMAGES)),
    later("injection"),
    later("sidecar"),
];

const PROCESSING: &[Field] = &[
    field("resource", Shape::Texts),
    field("redact", Shape::List(&Shape::Object(REDACT))),
    field("drop", Shape::List(&Shape::Text)),
    field("limits", Shape::Object(LIMITS)),
    field(
        "kubernetes",
        Shape::Object(&[
            field("labels", Shape::List(&Shape::Text)),
            field("annotations", Shape::List(&Shape::Text)),
        ]),
    ),
];

const REDACT: &[Field] = &[
    field("keys", Shape::List(&Shape::Text)),
    field("values", Shape::Text),
];

const LIMITS: &[Field] = &[
    field("attributesPerSpan", Shape::Count),
    field("eventsPerSpan", Shape::Count),
    field("linksPerSpan", Shape::Count),
    field("attributeValueBytes", Shape::Size),
];

const SAMPLING: &[Field] = &[
    field("head", Shape::Object(&[field("ratio", Shape::Number)])),
    later("tail"),
];

const STORAGE: &[Field] = &[
    field("managed", Shape::Object(MANAGED)),
    field("external", Shape::Object(EXTERNAL)),
    field(
        "retention",
        Shape::Object(&[field("hot", Shape::Text), later("cold")]),
    ),
];

const MANAGED: &[Field] = &[
    field("size", Shape::Size),
    field("storageClassName", Shape::Text),
    field("resources", Shape::Object(RESOURCES)),
];

const SECRET_NAME: &[Field] = &[required("name", Shape::Text)];

const SECRET_KEY: &[Field] = &[required("name", Shape::Text), field("key", Shape::Text)];

const RESOURCES: &[Field] = &[
    field("requests", Shape::Sizes),
    field("limits", Shape::Sizes),
];

const COLLECTOR: &[Field] = &[
    field("resources", Shape::Object(RESOURCES)),
    field("tolerations", Shape::List(&Shape::Object(TOLERATION))),
    field("nodeSelector", Shape::Texts),
    field("priorityClassName", Shape::Text),
];

const TOLERATION: &[Field] = &[
    field("key", Shape::Text),
    field("operator", Shape::Word(&["Exists", "Equal"])),
    field("value", Shape::Text),
    field(
        "effect",
        Shape::Word(&["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    ),
    field("tolerationSeconds", Shape::Count),
];

const QUERY: &[Field] = &[
    field("replicas", Shape::Count),
    field(
        "auth",
        Shape::Object(&[required("tokensSecret", Shape::Object(SECRET_NAME))]),
    ),
    field(
        "tls",
        Shape::Object(&[required("secret", Shape::Object(SECRET_NAME))]),
    ),
    field("resources", Shape::Object(RESOURCES)),
];

const IMAGES: &[Field] = &[
    field("registry", Shape::Text),
    field("pullSecrets", Shape::List(&Shape::Object(SECRET_NAME))),
];

const EXTERNAL: &[Field] = &[
    required("url", Shape::Text),
    field("database", Shape::Text),
    field("credentialsSecret", Shape::Object(SECRET_NAME)),
    field("cluster", Shape::Text),
    field(
        "tls",
        Shape::Object(&[field("caSecret", Shape::Object(SECRET_KEY))]),
    ),
];

/// Finds everything in `value` that does not fit `shape`. An empty value (`key:`) counts as left
/// out, as in Kubernetes.
pub(crate) fn misfits(shape: &Shape, value: &Value, path: &Path, problems: &mut Vec<Problem>) {
    let mut wrong = |wanted: &str| {
        let text = format!("must be {wanted}, but is {}", describe(value));
        let advice = match (shape, value) {
            (Shape::Text, Value::Bool(_) | Value::Number(_)) => "put it in quotes",
            _ => "",
        };
        problems.push(Problem::new(path.clone(), text, advice));
    };
    match (shape, value) {
        (Shape::Object(fields), Value::Mapping(map)) => object(fields, map, path, problems),
        (Shape::Texts, Value::Mapping(map)) => each(&Shape::Text, map, path, problems),
        (Shape::Sizes, Value::Mapping(map)) => each(&Shape::Size, map, path, problems),
        (Shape::Switch, Value::Bool(_)) => {}
        (Shape::Word(words), Value::String(word)) if words.contains(&word.as_str()) => {}
        (Shape::List(item), Value::Sequence(list)) => {
            for (n, value) in list.iter().enumerate() {
                misfits(item, value, &path.index(n), problems);
            }
        }
        (Shape::Text | Shape::Size, Value::String(_)) | (Shape::Number, Value::Number(_)) => {}
        (Shape::Count | Shape::Size, Value::Number(n)) if n.is_u64() => {}
        (Shape::Object(_), _) => wrong("a map of fields"),
        (Shape::Texts, _) => wrong("a map of names to text"),
        (Shape::List(_), _) => wrong("a list"),
        (Shape::Text, _) => wrong("text"),
        (Shape::Number, _) => wrong("a number"),
        (Shape::Count, _) => wrong("a whole number that is not negative"),
        (Shape::Size, _) => wrong("a size such as 8Ki or 8192"),
        (Shape::Sizes, _) => wrong("a map of names to sizes"),
        (Shape::Switch, _) => wrong("true or false"),
        (Shape::Word(words), _) => wrong(&words.join(" or ")),
    }
}

fn object(
    fields: &'static [Field],
    map: &serde_yaml::Mapping,
    path: &Path,
    problems: &mut Vec<Problem>,
) {
    let known = || {
        let names: Vec<_> = fields
            .iter()
            .filter(|f| f.shape.is_some())
            .map(|f| f.name)
            .collect();
        format!("known fields here: {}", names.join(", "))
    };
    for (key, _) in map {
        let Value::String(key) = key else {
            let text = format!("a field's name must be text, but is {}", describe(key));
            problems.push(Problem::new(path.clone(), text, known()));
            continue;
        };
        let (text, advice) = match fields.iter().find(|f| f.name == key) {
            Some(Field { shape: Some(_), .. }) => continue,
            Some(_) => (
                "not built yet in this version",
                format!("remove it; {}", known()),
            ),
            None => ("unknown field", known()),
        };
        problems.push(Problem {
            at_key: true,
            ..Problem::new(path.key(key), text, advice)
        });
    }
    for field in fields {
        let value = map.get(field.name).filter(|value| !value.is_null());
        match (&field.shape, value) {
            (Some(shape), Some(value)) => misfits(shape, value, &path.key(field.name), problems),
            (_, None) if field.required => {
                let text = format!("the field {} is missing", field.name);
                problems.push(Problem::new(path.clone(), text, ""));
            }
            _ => {}
        }
    }
}

fn each(shape: &Shape, map: &serde_yaml::Mapping, path: &Path, problems: &mut Vec<Problem>) {
    for (key, value) in map {
        match key {
            Value::String(key) => misfits(shape, value, &path.key(key), problems),
            key => {
                let text = format!("a name must be text, but is {}", describe(key));
                problems.push(Problem::new(path.clone(), text, "put it in quotes"));
            }
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(text) => {
            let shown: String = text.chars().take(60).collect();
            format!("the text {shown:?}")
        }
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a map".to_owned(),
        Value::Tagged(tagged) => format!("tagged {}", tagged.tag),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::*;
    use crate::quantity::{Amount, Quantity};

    /// A document with every field of the types.
    fn full() -> TracingPipeline {
        let text = || Some("x".to_owned());
        let texts = || [("a".to_owned(), "b".to_owned())].into();
        let size = || Some(Quantity::Text("8Ki".to_owned()));
        let amounts = || [("cpu".to_owned(), Amount::Text("1m".to_owned()))].into();
        let resources = || {
            Some(Resources {
                requests: amounts(),
                limits: amounts(),
            })
        };
        let secret = || SecretName {
            name: "x".to_owned(),
        };
        TracingPipeline {
            metadata: Metadata {
                name: text(),
                namespace: text(),
                labels: texts(),
                annotations: texts(),
            },
            spec: Spec {
                enabled: Some(false),
                management_state: Some(ManagementState::Unmanaged),
                processing: Processing {
                    resource: texts(),
                    kubernetes: Kubernetes {
                        labels: vec!["a".to_owned()],
                        annotations: vec!["a".to_owned()],
                    },
                    redact: vec![RedactRule {
                        keys: Some(vec!["a".to_owned()]),
                        values: text(),
                    }],
                    drop: vec!["{ }".to_owned()],
                    limits: Limits {
                        attributes_per_span: Some(1),
                        events_per_span: Some(1),
                        links_per_span: Some(1),
                        attribute_value_bytes: size(),
                    },
                },
                sampling: Sampling {
                    head: Head { ratio: Some(1.0) },
                },
                storage: Storage {
                    managed: Some(Managed {
                        size: size(),
                        storage_class_name: text(),
                        resources: resources(),
                    }),
                    external: Some(External {
                        url: "x".to_owned(),
                        database: text(),
                        credentials_secret: Some(SecretName {
                            name: "x".to_owned(),
                        }),
                        cluster: text(),
                        tls: Some(ExternalTls {
                            ca_secret: Some(SecretKey {
                                name: "x".to_owned(),
                                key: text(),
                            }),
                        }),
                    }),
                    retention: Retention { hot: text() },
                },
                collector: Collector {
                    resources: resources(),
                    tolerations: vec![Toleration {
                        key: text(),
                        operator: Some(TolerationOperator::Equal),
                        value: text(),
                        effect: Some(TaintEffect::NoSchedule),
                        toleration_seconds: Some(1),
                    }],
                    node_selector: texts(),
                    priority_class_name: text(),
                },
                query: Query {
                    replicas: Some(2),
                    auth: Some(QueryAuth {
                        tokens_secret: secret(),
                    }),
                    tls: Some(QueryTls { secret: secret() }),
                    resources: resources(),
                },
                grafana: Grafana {
                    datasources: Some(true),
                },
                images: Images {
                    registry: text(),
                    pull_secrets: vec![secret()],
                },
            },
            ..TracingPipeline::default()
        }
    }

    fn has_every_field(shape: &Shape, value: &Value, path: &str) {
        match shape {
            Shape::Object(fields) => {
                for field in *fields {
                    if let Some(shape) = &field.shape {
                        let path = format!("{path}.{}", field.name);
                        let value = value.get(field.name).unwrap_or_else(|| panic!("no {path}"));
                        has_every_field(shape, value, &path);
                    }
                }
            }
            Shape::List(item) => has_every_field(item, &value[0], path),
            _ => {}
        }
    }

    #[test]
    fn the_shape_is_that_of_the_types() {
        let value = serde_yaml::to_value(full()).unwrap();
        let mut problems = Vec::new();
        misfits(&DOCUMENT, &value, &Path::default(), &mut problems);
        assert_eq!(problems, [], "a field of the types is not in the shape");
        has_every_field(&DOCUMENT, &value, "");
        assert_eq!(
            serde_yaml::from_value::<TracingPipeline>(value).unwrap(),
            full()
        );
    }
}
