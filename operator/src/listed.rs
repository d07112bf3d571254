//! Objects of one kind as a watch tells of them, each in the form that is kept.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// Objects by key, and whether all of them were listed.
#[derive(Debug)]
pub struct Listed<K, T> {
    objects: BTreeMap<K, T>,
    /// A list that is being read, until it is whole.
    coming: BTreeMap<K, T>,
    is_listed: bool,
}

impl<K, T> Default for Listed<K, T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            coming: BTreeMap::new(),
            is_listed: false,
        }
    }
}

impl<K: Ord, T> Listed<K, T> {
    /// What a watch said; `form` gives an object's key and, where it counts, what is kept of it.
    pub fn take<O>(&mut self, event: Event<O>, mut form: impl FnMut(O) -> (K, Option<T>)) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => put(&mut self.coming, form(object)),
            Event::InitDone => {
                self.objects = std::mem::take(&mut self.coming);
                self.is_listed = true;
            }
            Event::Apply(object) => put(&mut self.objects, form(object)),
            Event::Delete(object) => {
                self.objects.remove(&form(object).0);
            }
        }
    }

    /// The objects; none until all of them were listed.
    pub fn all(&self) -> Option<&BTreeMap<K, T>> {
        self.is_listed.then_some(&self.objects)
    }
}

fn put<K: Ord, T>(objects: &mut BTreeMap<K, T>, (key, formed): (K, Option<T>)) {
    match formed {
        Some(formed) => {
            objects.insert(key, formed);
        }
        None => {
            objects.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_when_it_is_whole() {
        let mut listed = Listed::default();
        // Odd numbers do not count.
        let form = |(key, value): (char, u8)| (key, (value % 2 == 0).then_some(value));
        let mut take = |event| {
            listed.take(event, form);
            listed
                .all()
                .map(|all| all.clone().into_iter().collect::<Vec<_>>())
        };
        assert_eq!(take(Event::Init), None);
        assert_eq!(take(Event::InitApply(('a', 2))), None);
        assert_eq!(take(Event::InitApply(('b', 4))), None);
        assert_eq!(take(Event::InitDone), Some(vec![('a', 2), ('b', 4)]));
        assert_eq!(take(Event::Apply(('a', 3))), Some(vec![('b', 4)]));
        assert_eq!(take(Event::Apply(('c', 6))), Some(vec![('b', 4), ('c', 6)]));
        assert_eq!(take(Event::Delete(('b', 4))), Some(vec![('c', 6)]));
        // The watch begins anew: until the list is whole, what is known stays.
        assert_eq!(take(Event::Init), Some(vec![('c', 6)]));
        assert_eq!(take(Event::InitApply(('d', 8))), Some(vec![('c', 6)]));
        assert_eq!(take(Event::InitDone), Some(vec![('d', 8)]));
    }
}
