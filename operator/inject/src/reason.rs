//! Why a pod was injected, or was not: the same words in its annotation, metrics, events and the docs.

use std::fmt;

/// The outcome of an injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// At least one container was injected.
    Injected,
    /// The pod or its namespace has the annotation `spanloom.dev/inject: "false"`.
    OptedOut,
    /// An older pipeline selects the pod, too, and injects it.
    PipelineConflict,
    /// The pod is in its node's network.
    HostNetwork,
    /// The pod is the API server's picture of a static pod, which nobody can change.
    MirrorPod,
    /// The pod runs on Windows.
    Windows,
    /// Another product instruments the pod.
    AlreadyInstrumented,
    /// The annotation `spanloom.dev/container-names` names a container that the pod does not have.
    ContainerNotFound,
    /// The pod has no containers other than proxies.
    NoAppContainer,
    /// Its containers send their traces to an endpoint of their own.
    OwnEndpoint,
    /// Its containers have variables from ConfigMaps or Secrets, which may have an endpoint of their own.
    EnvFromUnknown,
}

impl Reason {
    /// Every reason, in the order of the docs.
    pub const ALL: [Self; 11] = [
        Self::Injected,
        Self::OptedOut,
        Self::PipelineConflict,
        Self::HostNetwork,
        Self::MirrorPod,
        Self::Windows,
        Self::AlreadyInstrumented,
        Self::ContainerNotFound,
        Self::NoAppContainer,
        Self::OwnEndpoint,
        Self::EnvFromUnknown,
    ];

    /// The reason with this word.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Injected => "Injected",
            Self::OptedOut => "OptedOut",
            Self::PipelineConflict => "PipelineConflict",
            Self::HostNetwork => "HostNetwork",
            Self::MirrorPod => "MirrorPod",
            Self::Windows => "Windows",
            Self::AlreadyInstrumented => "AlreadyInstrumented",
            Self::ContainerNotFound => "ContainerNotFound",
            Self::NoAppContainer => "NoAppContainer",
            Self::OwnEndpoint => "OwnEndpoint",
            Self::EnvFromUnknown => "EnvFromUnknown",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_docs_have_a_section_for_each() {
        let docs = include_str!("../../../docs/troubleshoot.md");
        let (_, section) = docs.split_once("## A pod is not injected").unwrap();
        let headings = section.lines().filter_map(|line| line.strip_prefix("### "));
        let names = Reason::ALL.map(Reason::name);
        assert_eq!(headings.collect::<Vec<_>>(), names);
    }
}
