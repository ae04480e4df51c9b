//! The fuzz targets of `fuzz/` without the fuzzer: the committed corpus, the vectors and their neighbours
//! in every gate. Goal: what a fuzzer once found stays fixed, and the targets stay in step with the code.

#![allow(unreachable_pub)] // the targets are a crate of their own for the fuzzer

use std::fs;
use std::path::Path;

// The targets name the rooms as they are named in the crate of the fuzzer.
use ermine::{limits, mqtt, routing, session};

#[path = "../fuzz/src/broker.rs"]
mod broker;
#[path = "../fuzz/src/client.rs"]
mod client;
#[path = "../fuzz/src/filters.rs"]
mod filters;
#[path = "../fuzz/src/input.rs"]
mod input;
#[path = "../fuzz/src/packets.rs"]
mod packets;
#[path = "../fuzz/src/sessions.rs"]
mod sessions;

/// Runs every file of a corpus, and each with one byte changed at a few places.
fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("a corpus") {
        let mut data = fs::read(entry.expect("a readable entry").path()).expect("a readable file");
        run(&data);
        for at in (0..data.len()).step_by(data.len().div_ceil(8).max(1)) {
            let byte = data[at];
            for changed in [byte ^ 1, byte ^ 0x80, byte.wrapping_add(7)] {
                data[at] = changed;
                run(&data);
            }
            data[at] = byte;
        }
        count += 1;
    }
    assert!(count > 20, "{count} files in the corpus of {target}");
}

#[test]
fn the_corpus_of_packets_is_without_a_finding() {
    replay("packets", packets::run);
}

#[test]
fn the_corpus_of_filters_is_without_a_finding() {
    replay("filters", filters::run);
}

#[test]
fn the_corpus_of_sessions_is_without_a_finding() {
    replay("sessions", sessions::run);
}

#[test]
fn the_vectors_in_every_role_and_version_are_without_a_finding() {
    for line in include_str!("mqtt/vectors.tsv").lines().skip(1) {
        let hex = line.split('\t').nth(7).expect("the bytes of a vector");
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two hexadecimal digits");
        let mut data = vec![0, 3];
        data.extend((0..hex.len()).step_by(2).map(byte));
        for which in 0..9 {
            data[0] = which;
            packets::run(&data);
        }
    }
}
