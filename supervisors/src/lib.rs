//! OTP supervision for actix actors.
#![warn(missing_docs)]

mod address;
mod context;
mod dynamic;
mod error;
mod exit;
pub mod intensity;
mod name;
mod panic;
mod pid;
pub mod plan;
mod process;
mod render;
pub mod report;
mod request;
mod spec;
mod supervisor;
mod tree;

pub use address::{Caster, Ref};
pub use context::Context;
pub use dynamic::DynamicSupervisor;
pub use error::{CallError, ChildError, Gone, InitError, NoSuchProcess, StartError};
pub use exit::{Down, ExitReason, MonitorRef, PanicReport};
pub use intensity::Intensity;
pub use name::Name;
pub use pid::Pid;
pub use report::{Report, ReportSink};
pub use request::{
    AddChildren, Answer, ChildCounts, ChildKey, ChildState, ChildStatus, CountChildren, DeleteChild, Reply,
    RestartChild, RestartError, StartChild, TerminateChild, WhichChildren,
};
pub use spec::{
    AutoShutdown, ChildSpec, DynamicSpec, ProcessKind, Restart, Shutdown, Strategy, SupervisorSpec,
};
pub use supervisor::Supervisor;
pub use tree::{ProcessInfo, RestartOutcome, RestartRecord, Root, Tree, TreeOptions, start};
