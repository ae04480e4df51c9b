//! Every numbered clause of MQTT 3.1.1 and 5.0 (appendix B of each) and the tests that cite it. Goal: no
//! clause is forgotten, and docs/CONFORMANCE.md says which test shows which. Method: read
//! `tests/mqtt/clauses.tsv`, the citations in all tests and the clauses of `tests/mqtt/vectors.tsv`, build
//! the table and compare it with the committed one.
//!
//! `[MQTT-x.y.z-n]` cites 5.0 and `[MQTT3-x.y.z-n]` 3.1.1: the two standards number the same words
//! differently. `[MQTT-x.y.z-n..m]` cites a range. What counts is a citation in the documentation of a
//! test or in a comment within it. After adding one:
//! `ERMINE_CONFORMANCE=write cargo test --test conformance`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const CLAUSES: &str = include_str!("mqtt/clauses.tsv");
const VECTORS: &str = include_str!("mqtt/vectors.tsv");
const TABLE: &str = "docs/CONFORMANCE.md";

/// Statements in appendix B of each standard.
const COUNTS: [(&str, usize); 2] = [("3.1.1", 141), ("5.0", 251)];

/// A clause: its version and its number.
type Clause = (&'static str, String);

/// Per clause, the files that show it, and in each the tests or vectors.
type Shown = BTreeMap<Clause, BTreeMap<String, Vec<String>>>;

struct Row {
    clause: Clause,
    words: &'static str,
    excuse: &'static str,
}

fn rows() -> Vec<Row> {
    let row = |line: &'static str| {
        let columns: Vec<_> = line.split('\t').collect();
        let [version, number, words, excuse] = columns[..] else {
            panic!("not a clause: {line}");
        };
        Row {
            clause: (version, number.into()),
            words,
            excuse,
        }
    };
    CLAUSES.lines().skip(1).map(row).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable directory entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path);
        }
    }
}

/// The clauses cited in one line.
fn cited(line: &str) -> Vec<Clause> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("[MQTT") {
        let text = &line[at + "[MQTT".len()..];
        let Some((version, text)) = text
            .strip_prefix("3-")
            .map(|text| ("3.1.1", text))
            .or_else(|| text.strip_prefix('-').map(|text| ("5.0", text)))
        else {
            continue;
        };
        let Some((number, _)) = text.split_once(']') else {
            continue;
        };
        let Some((section, numbers)) = number.split_once('-') else {
            // A whole section, not a clause.
            continue;
        };
        let (first, last) = numbers.split_once("..").unwrap_or((numbers, numbers));
        let parse = |number: &str| {
            number
                .parse::<u32>()
                .unwrap_or_else(|_| panic!("no clause: {line}"))
        };
        found.extend((parse(first)..=parse(last)).map(|n| (version, format!("{section}-{n}"))));
    }
    found
}

/// What the tests of one file cite: a line belongs to the test that it documents or stands in.
fn citations(text: &str) -> Vec<(Clause, String)> {
    let mut found = Vec::new();
    let (mut waiting, mut test, mut is_test) = (Vec::new(), None::<String>, false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("///") {
            waiting.extend(cited(line));
        } else if line.starts_with("#[test]") || line.starts_with("#[actix_rt::test]") {
            is_test = true;
        } else if let Some(name) = function(line) {
            test = is_test.then(|| name.to_owned());
            let documented = std::mem::take(&mut waiting);
            found.extend(
                documented
                    .into_iter()
                    .filter(|_| is_test)
                    .map(|clause| (clause, name.into())),
            );
            is_test = false;
        } else if let Some(test) = &test
            && line.contains("//")
        {
            found.extend(cited(line).into_iter().map(|clause| (clause, test.clone())));
        }
    }
    found
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(super) ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let rest = line.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

fn from_tests() -> Shown {
    let mut files = BTreeSet::new();
    for room in ["src", "tests"] {
        rust_files(&root().join(room), &mut files);
    }
    let mut shown = Shown::new();
    for file in files {
        let name = file
            .strip_prefix(root())
            .expect("below the root")
            .to_string_lossy()
            .replace('\\', "/");
        if name == "tests/conformance.rs" {
            continue;
        }
        for (clause, test) in citations(&fs::read_to_string(&file).expect("a readable file")) {
            let tests = shown.entry(clause).or_default().entry(name.clone()).or_default();
            if !tests.contains(&test) {
                tests.push(test);
            }
        }
    }
    shown
}

/// The vectors name clauses; those that the session decides (layer S) are shown elsewhere.
fn add_vectors(shown: &mut Shown, known: &BTreeSet<Clause>) {
    for line in VECTORS.lines().skip(1) {
        let columns: Vec<_> = line.split('\t').collect();
        let [id, version, layer, _, _, references, ..] = columns[..] else {
            panic!("not a vector: {line}");
        };
        let version = if version == "5" { "5.0" } else { "3.1.1" };
        for number in references.split(['/', ' ']).filter(|_| layer != "S") {
            let number = number.replace("3-8.3", "3.8.3");
            if known.contains(&(version, number.clone())) {
                let files = shown.entry((version, number)).or_default();
                files
                    .entry("tests/mqtt/vectors.tsv".into())
                    .or_default()
                    .push(id.into());
            }
        }
    }
}

fn cell(row: &Row, shown: &Shown) -> String {
    let Some(files) = shown.get(&row.clause) else {
        return match row.excuse {
            "client" => "– binds the client alone".into(),
            excuse => format!("– {excuse}"),
        };
    };
    let mut parts = Vec::new();
    for (file, names) in files {
        if file.ends_with(".tsv") {
            parts.push(format!("`{file}` {}", names.join(", ")));
        } else {
            parts.extend(names.iter().map(|name| format!("`{file}::{name}`")));
        }
    }
    parts.join("<br>")
}

fn table(rows: &[Row], shown: &Shown) -> String {
    let mut text = String::from(
        "# Conformance\n\n\
         Every numbered statement of MQTT 3.1.1 and MQTT 5.0 (appendix B of each standard, © OASIS; the \
         words here are ours, read the standard beside them) and the tests that cite it. Vectors are \
         rows of `tests/mqtt/vectors.tsv`, decoded by `tests/codec/vectors.rs`. In tests and code \
         `[MQTT-x.y.z-n]` is a statement of 5.0 and `[MQTT3-x.y.z-n]` one of 3.1.1. This file is \
         made from the tests; after \
         adding a citation run\n\n    ERMINE_CONFORMANCE=write cargo test --test conformance\n",
    );
    for (version, count) in COUNTS {
        let rows = || rows.iter().filter(|row| row.clause.0 == version);
        let tested = rows().filter(|row| shown.contains_key(&row.clause)).count();
        let _ = write!(
            text,
            "\n## MQTT {version}: {count} statements, {tested} with tests, {} with a reason\n\n\
             | clause | in a few words | shown by |\n|---|---|---|\n",
            count - tested
        );
        for row in rows() {
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                row.clause.1,
                row.words,
                cell(row, shown)
            );
        }
    }
    text
}

#[test]
fn every_clause_has_a_test_or_a_reason_and_the_table_says_which() {
    let rows = rows();
    let known: BTreeSet<_> = rows.iter().map(|row| row.clause.clone()).collect();
    for (version, count) in COUNTS {
        assert_eq!(
            known.iter().filter(|clause| clause.0 == version).count(),
            count,
            "{version}"
        );
    }
    let mut shown = from_tests();
    let unknown: Vec<_> = shown
        .iter()
        .filter(|(clause, _)| !known.contains(clause))
        .collect();
    assert!(unknown.is_empty(), "cited, but no clause: {unknown:#?}");
    add_vectors(&mut shown, &known);
    let forgotten = rows
        .iter()
        .filter(|row| row.excuse.is_empty() && !shown.contains_key(&row.clause));
    let forgotten: Vec<_> = forgotten
        .map(|row| format!("{} {}: {}", row.clause.0, row.clause.1, row.words))
        .collect();
    let table = table(&rows, &shown);
    if std::env::var("ERMINE_CONFORMANCE").is_ok_and(|what| what == "write") {
        fs::write(root().join(TABLE), &table).expect("written");
    }
    let committed = fs::read_to_string(root().join(TABLE)).unwrap_or_default();
    assert!(
        forgotten.is_empty(),
        "neither test nor reason:\n{}",
        forgotten.join("\n")
    );
    assert!(
        committed == table,
        "{TABLE} is stale: run ERMINE_CONFORMANCE=write cargo test --test conformance"
    );
}

#[test]
fn a_citation_belongs_to_the_test_around_or_below_it() {
    let text = "/// [MQTT-1.1.1-1]\nfn helper() {\n    // [MQTT-1.1.1-2]\n}\n\
                /// Words [MQTT3-2.2.2-1..3] `[MQTT-4.7]`.\n#[test]\nfn one() {\n    \
                let x = 1; // [MQTT-9.9.9-9]\n}\n";
    let found: Vec<_> = citations(text)
        .into_iter()
        .map(|((version, number), _)| format!("{version} {number}"))
        .collect();
    assert_eq!(
        found,
        ["3.1.1 2.2.2-1", "3.1.1 2.2.2-2", "3.1.1 2.2.2-3", "5.0 9.9.9-9"]
    );
}
