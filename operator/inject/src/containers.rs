//! Which containers of a pod are an app's.

use serde_json::Value;

use crate::others::is_helper;
use crate::pod::{self, LISTS, Pod};
use crate::{CONTAINER_NAMES, Reason};

/// The annotation with the container that kubectl takes where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A container, and where it is in the pod.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// One of [`LISTS`].
    pub list: &'static str,
    /// Its place in the list.
    pub index: usize,
    /// The container.
    pub container: &'a Value,
}

impl Place<'_> {
    /// The JSON pointer of its variables.
    pub fn env(&self) -> String {
        format!("/spec/{}/{}/env", self.list, self.index)
    }
}

/// The containers to inject: those that the pod names; else the one that kubectl takes; else all that are no helpers.
/// Init containers are only injected when they are named.
///
/// # Errors
/// A name that no container has, or no container is left.
pub fn chosen(pod: Pod<'_>) -> Result<Vec<Place<'_>>, Reason> {
    if let Some(names) = pod.annotation(CONTAINER_NAMES) {
        let names = names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let found: Option<Vec<_>> = names.map(|wanted| named(pod, &LISTS, wanted)).collect();
        return match found {
            Some(found) if !found.is_empty() => Ok(once(found)),
            _ => Err(Reason::ContainerNotFound),
        };
    }
    let default = pod.annotation(DEFAULT_CONTAINER);
    if let Some(place) = default.and_then(|name| named(pod, &["containers"], name)) {
        return Ok(vec![place]);
    }
    let apps: Vec<_> = places(pod, "containers")
        .filter(|place| !is_helper(place.container))
        .collect();
    match apps.is_empty() {
        true => Err(Reason::NoAppContainer),
        false => Ok(apps),
    }
}

fn places<'a>(pod: Pod<'a>, list: &'static str) -> impl Iterator<Item = Place<'a>> {
    let containers = pod.list(list).iter().enumerate();
    containers.map(move |(index, container)| Place {
        list,
        index,
        container,
    })
}

fn named<'a>(pod: Pod<'a>, lists: &[&'static str], name: &str) -> Option<Place<'a>> {
    lists
        .iter()
        .flat_map(|list| places(pod, list))
        .find(|place| pod::name(place.container) == name)
}

/// Each container once, in the pod's order.
fn once(mut places: Vec<Place<'_>>) -> Vec<Place<'_>> {
    places.sort_by_key(|place| (place.list, place.index));
    places.dedup_by_key(|place| (place.list, place.index));
    places
}
