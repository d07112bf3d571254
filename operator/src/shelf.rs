//! What a watch has told, kept by pipeline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use spanloom_plan::render::LABEL_PIPELINE;

/// Objects of one kind and namespace, in the form that is worked with. Clones share them.
#[derive(Debug)]
pub struct Shelf<T>(Arc<Mutex<Kept<T>>>);

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Kept<T> {
    /// By the pipeline's name, then their own.
    objects: BTreeMap<String, BTreeMap<String, Arc<T>>>,
    /// A list that is being read, until it is whole.
    coming: BTreeMap<String, BTreeMap<String, Arc<T>>>,
    is_listed: bool,
    refusal: Option<String>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Kept {
            objects: BTreeMap::new(),
            coming: BTreeMap::new(),
            is_listed: false,
            refusal: None,
        })))
    }
}

impl<T: PartialEq> Shelf<T> {
    /// What a watch said. Gives the pipelines for which something is different now.
    pub fn take(
        &self,
        event: Event<DynamicObject>,
        form: impl Fn(DynamicObject) -> Option<T>,
    ) -> Vec<String> {
        let mut kept = self.kept();
        match event {
            Event::Init => {
                kept.coming.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (pipeline, name) = names(&object);
                if let Some(formed) = form(object) {
                    let of = kept.coming.entry(pipeline).or_default();
                    of.insert(name, Arc::new(formed));
                }
                Vec::new()
            }
            Event::InitDone => {
                let coming = std::mem::take(&mut kept.coming);
                let before = std::mem::replace(&mut kept.objects, coming);
                kept.is_listed = true;
                kept.refusal = None;
                let all = before.keys().chain(kept.objects.keys());
                let mut changed: Vec<String> = all
                    .filter(|pipeline| before.get(*pipeline) != kept.objects.get(*pipeline))
                    .cloned()
                    .collect();
                changed.sort();
                changed.dedup();
                changed
            }
            Event::Apply(object) => {
                let (pipeline, name) = names(&object);
                let mut changed = kept.remove_elsewhere(&name, Some(&pipeline));
                let of = kept.objects.entry(pipeline.clone()).or_default();
                let before = match form(object) {
                    Some(formed) => {
                        let formed = Arc::new(formed);
                        let before = of.insert(name, Arc::clone(&formed));
                        before.is_some_and(|before| before == formed)
                    }
                    None => of.remove(&name).is_none(),
                };
                if !before {
                    changed.push(pipeline);
                }
                changed
            }
            Event::Delete(object) => kept.remove_elsewhere(&object.name_any(), None),
        }
    }
}

impl<T> Kept<T> {
    /// Removes the object, unless it is of this pipeline. Gives the pipelines that had it.
    fn remove_elsewhere(&mut self, name: &str, but: Option<&str>) -> Vec<String> {
        let mut had = Vec::new();
        for (pipeline, objects) in &mut self.objects {
            if but != Some(pipeline.as_str()) && objects.remove(name).is_some() {
                had.push(pipeline.clone());
            }
        }
        self.objects.retain(|_, objects| !objects.is_empty());
        had
    }
}

impl<T> Shelf<T> {
    /// The objects of a pipeline.
    ///
    /// # Errors
    /// Nothing was listed yet, and why, where the API server refuses it.
    pub fn of(&self, pipeline: &str) -> Result<Vec<Arc<T>>, Option<String>> {
        let kept = self.kept();
        if !kept.is_listed {
            return Err(kept.refusal.clone());
        }
        let objects = kept.objects.get(pipeline);
        Ok(objects
            .into_iter()
            .flat_map(|all| all.values().cloned())
            .collect())
    }

    /// Everything, by name, once it was listed.
    pub fn all(&self) -> Option<BTreeMap<String, Arc<T>>> {
        let kept = self.kept();
        kept.is_listed.then(|| {
            let all = kept.objects.values().flatten();
            all.map(|(name, object)| (name.clone(), Arc::clone(object)))
                .collect()
        })
    }

    /// The API server refuses the watch; what is kept stays.
    pub fn refused(&self, why: String) {
        self.kept().refusal = Some(why);
    }

    fn kept(&self) -> MutexGuard<'_, Kept<T>> {
        // What is set under it is set in whole values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(object: &DynamicObject) -> (String, String) {
    let pipeline = object.labels().get(LABEL_PIPELINE).cloned();
    (pipeline.unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, pipeline: &str, value: u32) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {LABEL_PIPELINE: pipeline}}, "value": value,
        }))
        .unwrap()
    }

    fn form(object: DynamicObject) -> Option<u64> {
        object.data["value"].as_u64().filter(|value| *value < 90)
    }

    #[track_caller]
    fn takes(shelf: &Shelf<u64>, event: Event<DynamicObject>, changed: &[&str]) {
        assert_eq!(shelf.take(event, form), changed);
    }

    fn of(shelf: &Shelf<u64>, pipeline: &str) -> Vec<u64> {
        let objects = shelf.of(pipeline).unwrap();
        objects.iter().map(|object| **object).collect()
    }

    #[test]
    fn only_pipelines_with_a_change_are_named() {
        let shelf = Shelf::default();
        takes(&shelf, Event::Init, &[]);
        takes(&shelf, Event::InitApply(object("x", "a", 1)), &[]);
        assert_eq!(shelf.of("a"), Err(None));
        shelf.refused("forbidden".to_owned());
        assert_eq!(shelf.of("a"), Err(Some("forbidden".to_owned())));
        assert!(shelf.all().is_none());
        takes(&shelf, Event::InitDone, &["a"]);
        assert_eq!(of(&shelf, "a"), [1]);
        takes(&shelf, Event::Apply(object("x", "a", 1)), &[]);
        takes(&shelf, Event::Apply(object("y", "b", 1)), &["b"]);
        // It goes from one to the other.
        takes(&shelf, Event::Apply(object("x", "b", 1)), &["a", "b"]);
        assert_eq!((of(&shelf, "a"), of(&shelf, "b")), (vec![], vec![1, 1]));
        takes(&shelf, Event::Apply(object("y", "b", 99)), &["b"]);
        takes(&shelf, Event::Apply(object("z", "b", 99)), &[]);
        takes(&shelf, Event::Delete(object("y", "b", 1)), &[]);
        takes(&shelf, Event::Delete(object("x", "b", 1)), &["b"]);
        assert_eq!(of(&shelf, "b"), [0u64; 0]);
    }

    #[test]
    fn objects_without_a_pipeline_are_kept_too() {
        let shelf = Shelf::default();
        takes(&shelf, Event::Init, &[]);
        takes(&shelf, Event::InitDone, &[]);
        takes(&shelf, Event::Apply(object("x", "", 1)), &[""]);
        takes(&shelf, Event::Apply(object("x", "", 1)), &[]);
        takes(&shelf, Event::Apply(object("x", "", 2)), &[""]);
        assert_eq!(shelf.all().unwrap().len(), 1);
    }

    #[test]
    fn a_list_takes_the_place_of_what_was_known() {
        let shelf = Shelf::default();
        for (name, pipeline) in [("x", "a"), ("y", "b")] {
            shelf.take(Event::InitApply(object(name, pipeline, 1)), form);
        }
        takes(&shelf, Event::InitDone, &["a", "b"]);
        // It begins anew and breaks off: what was known stays.
        takes(&shelf, Event::Init, &[]);
        takes(&shelf, Event::InitApply(object("x", "a", 2)), &[]);
        assert_eq!(of(&shelf, "a"), [1]);
        takes(&shelf, Event::Init, &[]);
        takes(&shelf, Event::InitApply(object("y", "b", 1)), &[]);
        takes(&shelf, Event::InitDone, &["a"]);
        assert_eq!(shelf.all().unwrap().keys().collect::<Vec<_>>(), ["y"]);
    }
}
