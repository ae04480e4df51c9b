//! OTP supervision for actix actors.
//!
//! An actor that says `type Context = supervisors::Context<Self>` is an OTP process: it has a pid, an exit
//! reason that is reported whatever happens, exit signals, monitors. Supervisors start processes in order,
//! restart them by strategy and intensity, and stop them in reverse order. Below are the terms, the
//! guarantees, the gotchas and where this differs from OTP; `examples/ladder.rs` shows a tree that escalates.
//!
//! ```
//! use actix::{Actor, Arbiter, Handler, Message};
//! use supervisors::*;
//!
//! /// Counts, and panics at three.
//! struct Counter(u32);
//!
//! impl Actor for Counter {
//!     type Context = Context<Self>;
//! }
//!
//! #[derive(Message)]
//! #[rtype(result = "u32")]
//! struct Count;
//!
//! impl Handler<Count> for Counter {
//!     type Result = u32;
//!
//!     fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u32 {
//!         self.0 += 1;
//!         assert!(self.0 < 3, "cannot count to three");
//!         self.0
//!     }
//! }
//!
//! actix::System::new().block_on(async {
//!     let (here, counter) = (Arbiter::current(), Name::<Counter>::new("counter"));
//!     let child = ChildSpec::worker("counter", &here, |_ctx| Ok(Counter(0))).name(&counter);
//!     let root = ChildSpec::supervisor("root", &here, move || {
//!         SupervisorSpec::new(Strategy::OneForOne, Intensity::new(3, 5), vec![child.clone()])
//!     });
//!     let root = start(root, TreeOptions::default()).await.expect("the tree starts");
//!
//!     assert_eq!(counter.call(Count).await, Ok(1));
//!     assert_eq!(counter.call(Count).await, Ok(2));
//!     assert_eq!(counter.call(Count).await, Err(CallError::Died));
//!     while counter.whereis().is_none() {
//!         tokio::task::yield_now().await; // It is being restarted.
//!     }
//!     assert_eq!(counter.call(Count).await, Ok(1)); // Same name, fresh state.
//!     assert_eq!(root.tree().history().len(), 1);
//!     assert_eq!(root.stop().await, ExitReason::Shutdown);
//! });
//! ```
#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

/// What `slot` is made of; its test has it made of something else.
mod sync {
    pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};
}

mod address;
mod backtrace;
mod context;
mod dynamic;
mod error;
mod exit;
pub mod intensity;
mod name;
mod office;
mod outline;
mod panic;
mod pid;
pub mod plan;
mod process;
mod render;
pub mod report;
mod reporter;
mod request;
mod slot;
mod spec;
mod supervisor;
mod tree;
mod watchdog;

pub use address::{Caster, Ref};
pub use backtrace::Trace;
pub use context::Context;
pub use dynamic::DynamicSupervisor;
pub use error::{CallError, ChildError, Gone, InitError, NoSuchProcess, StartError};
pub use exit::{Down, ExitReason, MonitorRef, PanicReport};
pub use intensity::Intensity;
pub use name::Name;
pub use outline::Outline;
pub use pid::Pid;
pub use report::{Report, ReportSink};
pub use reporter::reports_waiting;
pub use request::{
    AddChildren, Answer, ChildCounts, ChildKey, ChildState, ChildStatus, CountChildren, DeleteChild, Reply,
    RestartChild, RestartError, StartChild, TerminateChild, WhichChildren,
};
pub use spec::{
    AutoShutdown, ChildSpec, DynamicSpec, ProcessKind, Restart, Shutdown, Strategy, SupervisorSpec,
};
pub use supervisor::Supervisor;
pub use tree::{
    ProcessInfo, ProcessState, RestartOutcome, RestartRecord, Root, SteerError, Supervision, Tree,
    TreeOptions, start,
};
pub use watchdog::Seat;
