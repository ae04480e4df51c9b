//! The filters with wildcards as a trie of levels; its leaves are slots of the [`Trie`](super::Trie).
//!
//! Lean and without a pointer per child: nodes lie in one vector, the words of all levels are kept
//! once and counted, and one hash table holds every edge `(node, word) → node`. A topic's level is
//! hashed once, however many nodes are alive at its depth.

use std::collections::HashMap;
use std::str::Split;
use std::sync::Arc;

use ahash::RandomState;
use smallvec::SmallVec;

use crate::limits::TOPIC_LEVELS_MAX;

/// No node, no slot.
const NONE: u32 = u32::MAX;
/// The word of the edge `+`.
const PLUS: u32 = u32::MAX - 1;
/// A word that no filter has.
const UNKNOWN: u32 = u32::MAX - 2;
/// Behind the last level of a topic.
const END: u32 = u32::MAX - 3;
/// Levels of a topic that are matched without an allocation; deeper ones need a filter as deep, too.
const WORDS_INLINE: usize = 32;
/// The node before the first level.
const ROOT: u32 = 0;

/// Whether a filter has a wildcard level; without one it matches only the topic of the same text. Unlike
/// [`has_wildcard`](crate::mqtt::topic::has_wildcard) it takes invalid filters, too: none may be found twice.
pub(super) fn is_wildcard(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level == "+" || (level == "#" && levels.peek().is_none()) {
            return true;
        }
    }
    false
}

#[derive(Debug, Clone)]
struct Node {
    parent: u32,
    word: u32,
    /// The child under `+`.
    plus: u32,
    /// Children under words, all in [`Wildcards::edges`].
    children: u32,
    /// Slot of the filter that ends here.
    here: u32,
    /// Slot of the filter that ends here with `/#`.
    rest: u32,
}

impl Node {
    fn new(parent: u32, word: u32) -> Self {
        Self {
            parent,
            word,
            plus: NONE,
            children: 0,
            here: NONE,
            rest: NONE,
        }
    }

    fn is_bare(&self) -> bool {
        self.plus == NONE && self.children == 0 && self.here == NONE && self.rest == NONE
    }
}

/// Wildcard filter → slot.
#[derive(Debug)]
pub(super) struct Wildcards {
    nodes: Vec<Node>,
    nodes_free: Vec<u32>,
    edges: HashMap<(u32, u32), u32, RandomState>,
    words: Words,
}

impl Wildcards {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::new(NONE, NONE)],
            nodes_free: Vec::new(),
            edges: HashMap::default(),
            words: Words::default(),
        }
    }

    /// Lets `filter` lead to `slot`.
    pub(super) fn insert(&mut self, filter: &str, slot: u32) {
        let (path, rest) = split_rest(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            at = self.child(at, level).unwrap_or_else(|| self.grow(at, level));
        }
        let node = &mut self.nodes[at as usize];
        if rest {
            node.rest = slot;
        } else {
            node.here = slot;
        }
    }

    /// Forgets `filter` and the nodes that only it needed. One that was never inserted changes nothing.
    pub(super) fn remove(&mut self, filter: &str) {
        let (path, rest) = split_rest(filter);
        let mut at = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            let Some(child) = self.child(at, level) else {
                return;
            };
            at = child;
        }
        let node = &mut self.nodes[at as usize];
        if rest {
            node.rest = NONE;
        } else {
            node.here = NONE;
        }
        self.prune(at);
    }

    /// Calls `found` with the slot of every filter that matches `topic`.
    ///
    /// A topic that starts with `$` is not matched by a filter that starts with a wildcard
    /// `[MQTT-4.7.2-1]`; `#` stands for its parent level too (MQTT 4.7.1.2).
    pub(super) fn matches(&self, topic: &str, found: &mut impl FnMut(u32)) {
        if self.nodes[ROOT as usize].is_bare() {
            return;
        }
        let levels = topic.split('/');
        let mut walk = Walk {
            trie: self,
            levels,
            words: SmallVec::new(),
            found,
        };
        if topic.starts_with('$') {
            if let Some(at) = walk.word(0).and_then(|word| self.edge(ROOT, word)) {
                walk.visit(at, 1);
            }
        } else {
            walk.visit(ROOT, 0);
        }
    }

    /// Nodes in use, the root included.
    #[cfg(test)]
    pub(super) fn nodes_len(&self) -> usize {
        self.nodes.len() - self.nodes_free.len()
    }

    /// Words in use.
    #[cfg(test)]
    pub(super) fn words_len(&self) -> usize {
        self.words.numbers.len()
    }

    fn edge(&self, at: u32, word: u32) -> Option<u32> {
        self.edges.get(&(at, word)).copied()
    }

    fn child(&self, at: u32, level: &str) -> Option<u32> {
        if level == "+" {
            let plus = self.nodes[at as usize].plus;
            return (plus != NONE).then_some(plus);
        }
        self.words.find(level).and_then(|word| self.edge(at, word))
    }

    fn grow(&mut self, parent: u32, level: &str) -> u32 {
        let word = if level == "+" {
            PLUS
        } else {
            self.words.acquire(level)
        };
        let node = Node::new(parent, word);
        let at = match self.nodes_free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                let at = u32::try_from(self.nodes.len()).expect("four billion nodes do not fit in memory");
                self.nodes.push(node);
                at
            }
        };
        if word == PLUS {
            self.nodes[parent as usize].plus = at;
        } else {
            self.edges.insert((parent, word), at);
            self.nodes[parent as usize].children += 1;
        }
        at
    }

    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_bare() {
            let Node { parent, word, .. } = self.nodes[at as usize];
            if word == PLUS {
                self.nodes[parent as usize].plus = NONE;
            } else {
                self.edges.remove(&(parent, word));
                self.nodes[parent as usize].children -= 1;
                self.words.release(word);
            }
            self.nodes_free.push(at);
            at = parent;
        }
    }
}

/// The levels before a closing `#`, and whether there is one. `None` before a lone `#`.
fn split_rest(filter: &str) -> (Option<&str>, bool) {
    if filter == "#" {
        return (None, true);
    }
    match filter.strip_suffix("/#") {
        Some(path) => (Some(path), true),
        None => (Some(filter), false),
    }
}

/// One match on its way down. Words are looked up when the first branch reaches their level.
struct Walk<'w, 't, F> {
    trie: &'w Wildcards,
    levels: Split<'t, char>,
    words: SmallVec<[u32; WORDS_INLINE]>,
    found: &'w mut F,
}

impl<F: FnMut(u32)> Walk<'_, '_, F> {
    /// The word of the level at `depth`, or [`END`] behind the last. `None` beyond the bound of levels.
    fn word(&mut self, depth: usize) -> Option<u32> {
        while self.words.len() <= depth.min(TOPIC_LEVELS_MAX - 1) {
            let word = self
                .levels
                .next()
                .map(|level| self.trie.words.find(level).unwrap_or(UNKNOWN));
            self.words.push(word.unwrap_or(END));
        }
        match self.words.get(depth) {
            Some(word) => Some(*word),
            None => self.levels.clone().next().is_none().then_some(END),
        }
    }

    /// Visits the node `at`, which the first `depth` levels led to. It recurses only where the path
    /// forks at a `+`, at most once per level.
    fn visit(&mut self, mut at: u32, mut depth: usize) {
        loop {
            let node = &self.trie.nodes[at as usize];
            if node.rest != NONE {
                (self.found)(node.rest);
            }
            if node.here == NONE && node.plus == NONE && node.children == 0 {
                return;
            }
            let Some(word) = self.word(depth) else { return };
            if word == END {
                if node.here != NONE {
                    (self.found)(node.here);
                }
                return;
            }
            depth += 1;
            let child = if node.children == 0 || word == UNKNOWN {
                None
            } else {
                self.trie.edge(at, word)
            };
            at = match (node.plus, child) {
                (NONE, None) => return,
                (NONE, Some(child)) => child,
                (plus, None) => plus,
                (plus, Some(child)) => {
                    self.visit(plus, depth);
                    child
                }
            };
        }
    }
}

/// The words of all levels, each kept once and counted.
#[derive(Debug, Default)]
struct Words {
    numbers: HashMap<Arc<str>, u32, RandomState>,
    held: Vec<(Arc<str>, u32)>,
    free: Vec<u32>,
}

impl Words {
    fn find(&self, word: &str) -> Option<u32> {
        self.numbers.get(word).copied()
    }

    fn acquire(&mut self, word: &str) -> u32 {
        if let Some(number) = self.find(word) {
            self.held[number as usize].1 += 1;
            return number;
        }
        let text: Arc<str> = word.into();
        let number = match self.free.pop() {
            Some(number) => {
                self.held[number as usize] = (text.clone(), 1);
                number
            }
            None => {
                let number = u32::try_from(self.held.len()).expect("four billion words do not fit in memory");
                self.held.push((text.clone(), 1));
                number
            }
        };
        self.numbers.insert(text, number);
        number
    }

    fn release(&mut self, number: u32) {
        let (text, count) = &mut self.held[number as usize];
        *count -= 1;
        if *count == 0 {
            self.numbers.remove(&**text);
            *text = Arc::from("");
            self.free.push(number);
        }
    }
}
