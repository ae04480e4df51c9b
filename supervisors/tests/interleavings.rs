//! Goal: nothing that must be told once is told never or twice, in whatever order threads take their steps.
//! Method: loom runs `src/pid/mortal.rs` itself, made of loom's locks and atomics, through every order.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

mod sync {
    pub(super) use loom::sync::atomic::AtomicU8;
    pub(super) use loom::sync::{Mutex, MutexGuard};
}

#[path = "../src/pid/mortal.rs"]
#[allow(dead_code, unreachable_pub)]
mod mortal;

use mortal::Mortal;

const BIT: u8 = 1;
const OTHER: u8 = 2;

#[test]
fn a_signal_is_seen_by_the_first_poll_or_wakes_the_process() {
    loom::model(|| {
        let process = Arc::new(Mortal::<(), ()>::new());
        let sender = process.clone();
        let sent = thread::spawn(move || sender.signal(BIT).is_some());
        process.bind(());
        let seen = process.signals() & BIT != 0;
        let woken = sent.join().unwrap();
        assert!(seen || woken, "it would sleep for ever");
    });
}

#[test]
fn two_signals_at_once_are_both_seen_and_none_comes_after_the_end() {
    loom::model(|| {
        let process = Arc::new(Mortal::<(), ()>::new());
        process.bind(());
        let senders = [BIT, OTHER].map(|bit| {
            let process = process.clone();
            thread::spawn(move || process.signal(bit).is_some())
        });
        let woken = senders.map(|sender| sender.join().unwrap());
        assert_eq!((process.signals(), woken), (BIT | OTHER, [true, true]));
        process.bury();
        assert_eq!(process.signal(4), None);
        assert_eq!(process.signals(), BIT | OTHER);
    });
}

/// Sets a monitor; one on a process that has ended is told at once.
fn watch(process: &Mortal<(), usize>, told: &AtomicUsize) {
    let alive = process.with(|monitors, alive| {
        *monitors += usize::from(alive);
        alive
    });
    if !alive {
        told.fetch_add(1, Relaxed);
    }
}

#[test]
fn every_monitor_is_told_once_however_it_meets_the_end() {
    loom::model(|| {
        let process = Arc::new(Mortal::<(), usize>::new());
        let told = Arc::new(AtomicUsize::new(0));
        let watchers = [(); 2].map(|()| {
            let (process, told) = (process.clone(), told.clone());
            thread::spawn(move || watch(&process, &told))
        });
        told.fetch_add(process.bury(), Relaxed);
        for watcher in watchers {
            watcher.join().unwrap();
        }
        assert_eq!(told.load(Relaxed), 2);
        assert!(!process.is_alive());
    });
}

#[test]
fn a_monitor_that_is_given_up_at_the_end_is_told_at_most_once() {
    loom::model(|| {
        let process = Arc::new(Mortal::<(), usize>::new());
        let told = Arc::new(AtomicUsize::new(0));
        watch(&process, &told);
        let watched = process.clone();
        let given_up = thread::spawn(move || watched.with(|monitors, _| std::mem::take(monitors)));
        told.fetch_add(process.bury(), Relaxed);
        assert_eq!(told.load(Relaxed) + given_up.join().unwrap(), 1);
    });
}

#[test]
fn of_two_linked_processes_that_end_at_once_none_is_left_and_nothing_locks_up() {
    loom::model(|| {
        // As `pid/links.rs` does it: never both locks at a time.
        let (a, b) = (
            Arc::new(Mortal::<(), usize>::new()),
            Arc::new(Mortal::<(), usize>::new()),
        );
        for process in [&a, &b] {
            process.bind(());
            process.with(|links, _| *links = 1);
        }
        let end = |one: &Mortal<(), usize>, other: &Mortal<(), usize>| {
            if one.bury() == 1 {
                other.with(|links, _| *links = 0);
                other.signal(BIT);
            }
        };
        let (one, other) = (a.clone(), b.clone());
        let first = thread::spawn(move || end(&one, &other));
        end(&b, &a);
        first.join().unwrap();
        assert!(!a.is_alive() && !b.is_alive());
    });
}

#[test]
fn a_link_that_meets_the_end_of_its_partner_is_a_signal() {
    loom::model(|| {
        let (a, b) = (
            Arc::new(Mortal::<(), usize>::new()),
            Arc::new(Mortal::<(), usize>::new()),
        );
        a.bind(());
        let (ours, partner) = (a.clone(), b.clone());
        let ending = thread::spawn(move || {
            if partner.bury() == 1 {
                ours.with(|links, _| *links = 0);
                ours.signal(BIT);
            }
        });
        a.with(|links, _| *links = 1);
        let alive = b.with(|links, alive| {
            *links += usize::from(alive);
            alive
        });
        if !alive {
            a.with(|links, _| *links = 0);
            a.signal(BIT);
        }
        ending.join().unwrap();
        assert_eq!(a.signals(), BIT, "a would outlive its partner");
        assert_eq!(a.with(|links, _| *links), 0);
    });
}
