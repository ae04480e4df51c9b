//! Goal: nothing that must be told once is told never or twice, in whatever order threads take their steps.
//! Method: loom runs `src/pid/mortal.rs` and `src/slot.rs` (behind names and the paths of a tree) themselves,
//! made of loom's locks and atomics, through every order.

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::Relaxed;
use loom::thread;

mod sync {
    pub(super) use loom::sync::atomic::AtomicU8;
    pub(super) use loom::sync::{Mutex, MutexGuard, RwLock};
}

#[path = "../src/pid/mortal.rs"]
#[allow(dead_code, unreachable_pub)]
mod mortal;

#[path = "../src/slot.rs"]
#[allow(dead_code, unreachable_pub)]
mod slot;

use mortal::Mortal;
use slot::{Slot, Slots};

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

/// Two lives of one child: the first leaves, for which it has two occasions, while the second enters.
fn a_successor_stays(
    set: impl Fn(u8),
    leave: impl Fn(u8) + Clone + Send + 'static,
    get: impl Fn() -> Option<u8>,
) {
    let ends = leave.clone();
    let end = thread::spawn(move || ends(1));
    set(2);
    leave(1);
    assert_eq!(get(), Some(2), "nobody would find the second");
    end.join().unwrap();
    assert_eq!(get(), Some(2), "the first has taken the second along");
    leave(2);
    assert_eq!(get(), None, "a message would go to nobody and not come back");
}

#[test]
fn a_name_is_not_taken_from_the_successor_by_who_held_it_before() {
    loom::model(|| {
        let name = Arc::new(Slot::new());
        name.set(1);
        let (set, left, get) = (name.clone(), name.clone(), name.clone());
        a_successor_stays(
            move |pid| set.set(pid),
            move |pid| left.leave(|held| *held == pid),
            move || get.get(),
        );
    });
}

#[test]
fn a_path_leads_to_the_successor_and_not_to_who_stood_there_before() {
    loom::model(|| {
        let tree = Arc::new(Slots::new());
        tree.set("root/a", 1);
        tree.set("root/b", 9);
        let (set, left, get) = (tree.clone(), tree.clone(), tree.clone());
        a_successor_stays(
            move |pid| set.set("root/a", pid),
            move |pid| left.leave("root/a", |held| *held == pid),
            move || get.get("root/a"),
        );
        assert_eq!(tree.get("root/b"), Some(9), "a neighbour of the same shard");
    });
}

#[test]
fn who_asks_for_a_name_in_between_gets_one_of_its_holders_or_nobody_and_never_goes_back() {
    loom::model(|| {
        let name = Arc::new(Slot::new());
        name.set(1);
        let asked = name.clone();
        let asking = thread::spawn(move || (asked.get(), asked.get()));
        name.leave(|held| *held == 1);
        name.set(2);
        let seen = asking.join().unwrap();
        let order = |holder: Option<u8>| match holder {
            Some(1) => 0,
            None => 1,
            _ => 2,
        };
        assert!(order(seen.0) <= order(seen.1), "{seen:?}");
    });
}
