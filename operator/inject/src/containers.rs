//! Which containers of a pod are an app's.

use crate::others::is_helper;
use crate::pod::{Container, List, Pod};
use crate::{CONTAINER_NAMES, Reason};

/// The annotation with the container that kubectl takes where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A container, and where it is in the pod.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The list that it is in.
    pub list: List,
    /// Its place in the list.
    pub index: usize,
    /// The container.
    pub container: &'a Container,
}

impl Place<'_> {
    /// The JSON pointer of its variables.
    pub fn env(&self) -> String {
        format!("/spec/{}/{}/env", self.list.field(), self.index)
    }
}

/// The containers to inject: those that the pod names; else the one that kubectl takes, unless
/// a mesh may have named it; else all that are no helpers.
/// Init containers are only injected when they are named.
///
/// # Errors
/// A name that no container has, or no container is left.
pub fn chosen(pod: &Pod) -> Result<Vec<Place<'_>>, Reason> {
    if let Some(names) = pod.annotation(CONTAINER_NAMES) {
        let names = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let found: Option<Vec<_>> = names
            .map(|wanted| named(pod, &[List::Init, List::Main], wanted))
            .collect();
        return match found {
            Some(found) if !found.is_empty() => Ok(once(found)),
            _ => Err(Reason::ContainerNotFound),
        };
    }
    // A mesh's injector writes the annotation itself, with the first container.
    let has_helper = pod.containers().any(is_helper);
    let default = pod.annotation(DEFAULT_CONTAINER).filter(|_| !has_helper);
    if let Some(place) = default.and_then(|name| named(pod, &[List::Main], name)) {
        return Ok(vec![place]);
    }
    let apps: Vec<_> = places(pod, List::Main)
        .filter(|place| !is_helper(place.container))
        .collect();
    match apps.is_empty() {
        true => Err(Reason::NoAppContainer),
        false => Ok(apps),
    }
}

fn places(pod: &Pod, list: List) -> impl Iterator<Item = Place<'_>> {
    let containers = pod.list(list).iter().enumerate();
    containers.map(move |(index, container)| Place {
        list,
        index,
        container,
    })
}

fn named<'a>(pod: &'a Pod, lists: &[List], name: &str) -> Option<Place<'a>> {
    lists
        .iter()
        .flat_map(|list| places(pod, *list))
        .find(|place| place.container.name == name)
}

/// Each container once, in the pod's order.
fn once(mut places: Vec<Place<'_>>) -> Vec<Place<'_>> {
    places.sort_by_key(|place| (place.list, place.index));
    places.dedup_by_key(|place| (place.list, place.index));
    places
}
