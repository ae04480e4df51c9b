//! The house rules as a test: floors, fences, lengths, process cards. Goal: a change that breaks the
//! plan of the house fails the build with a sentence that says which rule and where. Method: read
//! every source file as text and as a syntax tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 110;

/// Floor of each room of `src/`, from the ground up (docs/ARCHITECTURE.md).
const FLOORS: &[(&str, u8)] = &[
    ("mqtt", 1),
    ("node_name", 1),
    // Plain numbers that every other room is bounded by, so beneath all of them.
    ("limits", 0),
    ("session", 2),
    ("routing", 2),
    ("access", 2),
    ("broker", 3),
    ("registry", 3),
    ("cluster", 4),
    ("store", 4),
    ("admin", 5),
    ("cli", 5),
    ("config", 5),
    ("node", 5),
    ("tree", 5),
];

/// A foreign crate and the only places of `src/` that may name it, with the reason.
const FENCES: &[(&str, &[&str], &str)] = &[
    (
        "ractor",
        &["cluster/dist.rs", "cluster/dist/"],
        "links between nodes have one door",
    ),
    (
        "ractor_cluster",
        &["cluster/dist.rs", "cluster/dist/"],
        "links between nodes have one door",
    ),
    (
        "redb",
        &["store/disk.rs", "store/disk/"],
        "another engine can stand there",
    ),
    ("clap", &["cli/"], "only the command line parses flags"),
    (
        "toml",
        &["config.rs", "config/"],
        "only the configuration is TOML",
    ),
];

/// Floors 1 and 2 are values: they never name a clock to read, a socket, a runtime or an actor.
const NOT_IN_VALUES: &[&str] = &[
    "tokio",
    "actix",
    "actix_rt",
    "supervisors",
    "socket2",
    "Instant::now",
    "SystemTime::now",
];

const ROOMS_THAT_MUST_NOT_APPEAR: &[&str] = &[
    "utils", "util", "common", "types", "helpers", "manager", "prelude", "misc",
];

struct Source {
    /// Path below the repository root, with `/`.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.map(|entry| entry.expect("a readable directory entry").path()) {
        if entry.is_dir() {
            if !entry.ends_with("target") {
                collect(&entry, found);
            }
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let path = entry
                .strip_prefix(root())
                .expect("below the root")
                .to_string_lossy()
                .replace('\\', "/");
            found.push(Source {
                path,
                text: fs::read_to_string(&entry).expect("a readable source file"),
            });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for room in ["src", "supervisors", "tests", "examples", "benches"] {
        collect(&root().join(room), &mut found);
    }
    assert!(found.len() > 20, "the walk found the sources");
    found
}

fn fail(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

fn is_test(source: &Source) -> bool {
    source.path.contains("/tests") || source.path.starts_with("tests") || source.path.ends_with("tests.rs")
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            offences.push(format!("{}: {lines} lines", source.path));
        }
        for (number, line) in source.text.lines().enumerate() {
            if line.chars().count() > LINE_COLUMNS_MAX {
                offences.push(format!(
                    "{}:{}: longer than {LINE_COLUMNS_MAX}",
                    source.path,
                    number + 1
                ));
            }
        }
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        LongFunctions {
            path: &source.path,
            offences: &mut offences,
        }
        .visit_file(&file);
    }
    fail(
        "a file has at most 500 lines, a function 70, a line 110 columns",
        &offences,
    );
}

struct LongFunctions<'a> {
    path: &'a str,
    offences: &'a mut Vec<String>,
}

impl LongFunctions<'_> {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines = block.span().end().line - block.span().start().line + 1;
        if lines > FUNCTION_LINES_MAX {
            self.offences
                .push(format!("{}: fn {name} has {lines} lines", self.path));
        }
    }
}

impl<'ast> Visit<'ast> for LongFunctions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig.ident, &function.block);
        visit::visit_item_fn(self, function);
    }
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig.ident, &function.block);
        visit::visit_impl_item_fn(self, function);
    }
}

fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
}

fn floor_of(room: &str) -> Option<u8> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map(|(_, floor)| *floor)
}

/// Rooms that a file imports: every `crate::room` in its code.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let names = match rest.strip_prefix('{') {
                Some(group) => group.split(['}', ',']).collect::<Vec<_>>(),
                None => vec![rest],
            };
            for name in names {
                let plain = |c: &char| c.is_alphanumeric() || *c == '_';
                found.insert(name.trim().chars().take_while(plain).collect());
            }
        }
    }
    found
}

#[test]
fn a_floor_imports_only_floors_below_it() {
    let mut offences = Vec::new();
    for source in sources() {
        let Some(room) = room_of(&source.path).filter(|room| !matches!(*room, "lib" | "main")) else {
            continue;
        };
        let Some(floor) = floor_of(room) else {
            offences.push(format!(
                "{}: room '{room}' stands on no floor; add it to the plan",
                source.path
            ));
            continue;
        };
        for other in imports(&source.text).into_iter().filter(|other| other != room) {
            // The top floor builds everything, so its rooms may see each other.
            if floor_of(&other).is_some_and(|below| below >= floor && floor < 5) {
                offences.push(format!("{}: floor {floor} imports crate::{other}", source.path));
            }
        }
    }
    fail(
        "a floor imports only floors below it; neighbours do not import each other",
        &offences,
    );
}

#[test]
fn values_name_no_clock_socket_runtime_or_actor() {
    let mut offences = Vec::new();
    for source in sources() {
        let low = room_of(&source.path)
            .and_then(floor_of)
            .is_some_and(|floor| floor <= 2);
        if !low || is_test(&source) {
            continue;
        }
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in NOT_IN_VALUES.iter().filter(|word| names(line, word)) {
                offences.push(format!("{}:{}: names {word}", source.path, number + 1));
            }
        }
    }
    fail("floors 1 and 2 are values", &offences);
}

/// Whether `line` holds `word` as a whole identifier or path.
fn names(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn foreign_crates_stay_behind_their_fences() {
    let mut offences = Vec::new();
    for source in sources() {
        let Some(inside) = source.path.strip_prefix("src/") else {
            continue;
        };
        for (name, allowed, why) in FENCES {
            if allowed.iter().any(|place| inside.starts_with(place)) {
                continue;
            }
            for (number, line) in source.text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let path = format!("{name}::");
                let used = code.match_indices(&path).any(|(at, _)| {
                    let before = code[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                });
                if used {
                    offences.push(format!("{}:{}: names {name} ({why})", source.path, number + 1));
                }
            }
        }
    }
    fail("a foreign crate is named only behind its fence", &offences);
}

#[test]
fn every_actor_opens_with_its_process_card() {
    const CARD: &[&str] = &["Parent:", "Owns:", "Asked by:", "Tells:", "Dies of:"];
    let mut offences = Vec::new();
    for source in sources()
        .into_iter()
        .filter(|source| source.path.starts_with("src/"))
    {
        let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        let actor = code
            .lines()
            .any(|line| line.starts_with("impl") && line.contains("Actor for "));
        if is_test(&source) || !actor {
            continue;
        }
        let header = source.text.lines().take_while(|line| line.starts_with("//!"));
        let header = header.collect::<Vec<_>>().join("\n");
        for entry in CARD.iter().filter(|entry| !header.contains(**entry)) {
            offences.push(format!("{}: the process card lacks '{entry}'", source.path));
        }
    }
    fail("an actor's file opens with its process card", &offences);
}

#[test]
fn no_room_has_a_name_that_says_nothing() {
    let offences: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.path.starts_with("tests/"))
        .filter(|source| {
            let mut parts = source.path.split('/').map(|part| part.trim_end_matches(".rs"));
            parts.any(|part| ROOMS_THAT_MUST_NOT_APPEAR.contains(&part))
        })
        .map(|source| source.path)
        .collect();
    fail("a room is named after what it holds", &offences);
}

#[test]
fn nothing_is_left_open_in_the_code() {
    // Split so that this file does not find itself.
    let words = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("todo", "!"),
        concat!("unimplemented", "!"),
        concat!("#[ign", "ore]"),
    ];
    let mut offences = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| names(line, word)) {
                offences.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    fail(
        "what is left is written down in an issue, not in the code",
        &offences,
    );
}

#[test]
fn every_path_in_the_architecture_exists() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    let mut offences = Vec::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        let rooted = ["src/", "tests/", "docs/", "examples/", "supervisors/", ".ci/"];
        let is_path = !quoted.contains(char::is_whitespace) && rooted.iter().any(|r| quoted.starts_with(r));
        if is_path && !root().join(quoted).exists() {
            offences.push(format!("docs/ARCHITECTURE.md names `{quoted}`"));
        }
    }
    fail("every path in docs/ARCHITECTURE.md exists", &offences);
}
