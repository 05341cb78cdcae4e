//! Puts names to what is wrong in a chain.

use super::{Code, Finding, Link};
use crate::envelope::EventHash;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Links of which the first is known to be good (or stands for the beginning), and what is found about them.
///
/// One finding at most for each event. An event whose place is explained by another's finding gets none: the hash of
/// a changed event fits nothing, so its follower hangs in the air without being at fault.
pub(super) struct Diagnosis<'a> {
    links: &'a [Link],
    found: BTreeMap<usize, Finding>,
    /// Events that are not part of the chain, and what follows them.
    off: BTreeSet<usize>,
    /// Repeated events, and where each stood first.
    copies: HashMap<usize, usize>,
    parent: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
}

impl<'a> Diagnosis<'a> {
    /// The findings, in stored order.
    pub(super) fn of(links: &'a [Link]) -> Vec<Finding> {
        let mut diagnosis = Self::new(links);
        for rule in [Self::envelope, Self::place, Self::hanging, Self::sequence] {
            for at in 1..links.len() {
                rule(&mut diagnosis, at);
            }
        }
        diagnosis.after_end();
        diagnosis.found.into_values().collect()
    }

    fn new(links: &'a [Link]) -> Self {
        let mut places: HashMap<EventHash, usize> = HashMap::new();
        let mut copies = HashMap::new();
        for (at, link) in links.iter().enumerate() {
            let first = *places.entry(link.hash).or_insert(at);
            if first != at {
                copies.insert(at, first);
            }
        }
        let followed = |link: &Link| link.prev.and_then(|prev| places.get(&prev).copied());
        let mut parent: Vec<_> = links.iter().map(followed).collect();
        // What the first link follows is not here.
        parent[0] = None;
        let mut children = vec![Vec::new(); links.len()];
        for (at, parent) in parent.iter().enumerate() {
            if let Some(parent) = parent {
                children[*parent].push(at);
            }
        }
        Self {
            links,
            found: BTreeMap::new(),
            off: BTreeSet::new(),
            copies,
            parent,
            children,
        }
    }

    fn find(&mut self, at: usize, code: Code, witness: Option<usize>, detail: impl Into<String>) {
        let link = &self.links[at];
        let witness = witness.map(|place| &self.links[place]);
        self.found.entry(at).or_insert_with(|| Finding {
            seq: link.seq,
            version: link.version,
            code,
            witness: witness.filter(|it| !it.is_start()).map(|it| it.seq),
            detail: detail.into(),
        });
    }

    fn expel(&mut self, at: usize, code: Code, witness: Option<usize>, detail: &str) {
        self.find(at, code, witness, detail);
        self.off.insert(at);
    }

    /// What the event says of itself.
    fn envelope(&mut self, at: usize) {
        const STRANGER: &str = "ce-subject names another task";
        let link = &self.links[at];
        if let Some(&first) = self.copies.get(&at) {
            self.expel(at, Code::Inserted, Some(first), "a copy");
        } else if let Some(reason) = &link.unreadable {
            self.find(at, Code::Unreadable, None, reason.as_str());
        } else if link.stranger {
            // What stands in its place with the right predecessor is an event of this chain whose header was changed.
            let in_place = self.parent[at] == Some(at - 1)
                && link.version == Some(self.links[at - 1].next_version());
            if in_place {
                self.find(at, Code::Changed, None, STRANGER);
            } else {
                self.expel(at, Code::Foreign, None, STRANGER);
            }
        }
    }

    /// An event whose predecessor is known.
    fn place(&mut self, at: usize) {
        let Some(parent) = self.parent[at].filter(|_| !self.off.contains(&at)) else {
            return;
        };
        let (link, before) = (&self.links[at], &self.links[parent]);
        if self.off.contains(&parent) {
            self.off.insert(at);
        } else if parent > at {
            let detail = "stored before the event that it follows";
            self.find(at, Code::Reordered, Some(parent), detail);
        } else if parent + 1 < at {
            self.fork(at, parent);
        } else if before.is_start() && (!link.begins || link.version != Some(1)) {
            let detail = "a task begins with task.received or task.rejected, version 1";
            self.find(at, Code::BrokenStart, None, detail);
        } else if link.version != Some(before.next_version()) {
            let detail = format!("version {} follows", before.next_version());
            self.find(at, Code::WrongVersion, Some(parent), detail);
        }
    }

    /// The event passes over others to follow an earlier one: either they or it are out of place.
    fn fork(&mut self, at: usize, parent: usize) {
        let mine = self.descendants(at);
        let line = self.ancestors(at);
        let siblings = self.descendants(parent);
        let aside = |x: &usize| !self.off.contains(x) && !mine.contains(x) && !line.contains(x);
        let (rivals, strays): (Vec<_>, Vec<_>) = (parent + 1..at)
            .filter(aside)
            .partition(|x| siblings.contains(x));
        for x in strays {
            let code = match self.parent[x] {
                None => Code::Foreign,
                Some(_) => Code::Inserted,
            };
            self.expel(x, code, Some(at), "nothing follows it");
        }
        let Some(&first) = rivals.first() else {
            return;
        };
        let ended = rivals.iter().any(|&x| self.links[x].terminal);
        if rivals.len() > mine.len() {
            if !ended {
                let detail = "another event follows the same one and is followed";
                self.expel(at, Code::Inserted, Some(first), detail);
            }
        } else if rivals.len() < mine.len() || !ended {
            for x in rivals {
                let detail = "another event follows the same one";
                self.expel(x, Code::Inserted, Some(at), detail);
            }
        }
    }

    /// An event whose predecessor is not there: it was changed or removed, or the event is not of this chain.
    fn hanging(&mut self, at: usize) {
        if self.off.contains(&at) {
            return;
        }
        if let Some(parent) = self.parent[at] {
            if self.off.contains(&parent) {
                self.off.insert(at);
            }
            return;
        }
        let on_chain = |x: &usize| !self.off.contains(x);
        let ended = (0..at)
            .filter(on_chain)
            .any(|place| self.links[place].terminal);
        if self.found.contains_key(&at) || ended {
            return; // After the end: found as that.
        }
        let before = (0..at)
            .rev()
            .find(on_chain)
            .expect("the first link is on the chain");
        let (link, previous) = (&self.links[at], &self.links[before]);
        if previous.is_start() {
            let detail = "the first event names one before it";
            return self.find(at, Code::BrokenStart, None, detail);
        }
        let (said, counted) = (previous.next_version(), self.counted(before) + 1);
        let expected = said.max(counted);
        let version = link.version.unwrap_or(0);
        if version == said || version == counted {
            if !self.found.contains_key(&before) {
                self.changed(at, before);
            }
        } else if version > expected {
            let gap = format!("versions {expected} to {}", version - 1);
            self.find(at, Code::Missing, Some(before), gap);
        } else {
            let detail = "names an event that is not in this chain";
            self.expel(at, Code::Foreign, None, detail);
        }
    }

    /// `at` and the one before contradict each other: the one that its follower contradicts too was changed.
    fn changed(&mut self, at: usize, before: usize) {
        let contradicted = self.children[at].is_empty()
            && self.links.get(at + 1).is_some_and(|follower| {
                self.parent[at + 1].is_none()
                    && follower.version == Some(self.links[at].next_version())
            });
        if contradicted {
            self.find(at, Code::Changed, Some(at + 1), "");
        } else {
            self.find(before, Code::Changed, Some(at), "");
        }
    }

    /// Sequences rise.
    fn sequence(&mut self, at: usize) {
        let rises = self.links[at].seq > self.links[at - 1].seq;
        if !rises && !self.found.contains_key(&at) && !self.found.contains_key(&(at - 1)) {
            let detail = "its sequence does not rise";
            self.find(at, Code::Reordered, Some(at - 1), detail);
        }
    }

    /// The first terminal event of the chain is its last event.
    fn after_end(&mut self) {
        let places = 0..self.links.len();
        let on_chain: Vec<_> = places.filter(|place| !self.off.contains(place)).collect();
        let mut rest = on_chain.into_iter();
        if let Some(end) = rest.find(|&place| self.links[place].terminal) {
            for at in rest {
                self.find(at, Code::AfterEnd, Some(end), "");
            }
        }
    }

    /// The version that the event has by its place.
    fn counted(&self, mut at: usize) -> u64 {
        let mut steps = 0;
        while let Some(parent) = self.parent[at].filter(|parent| *parent < at) {
            at = parent;
            steps += 1;
        }
        self.links[at].version.unwrap_or(0) + steps
    }

    fn ancestors(&self, at: usize) -> BTreeSet<usize> {
        let mut line = BTreeSet::new();
        let mut next = self.parent[at];
        while let Some(parent) = next.filter(|parent| line.insert(*parent)) {
            next = self.parent[parent];
        }
        line
    }

    /// With the event itself.
    fn descendants(&self, at: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![at];
        while let Some(one) = waiting.pop() {
            if found.insert(one) {
                waiting.extend(&self.children[one]);
            }
        }
        found
    }
}
