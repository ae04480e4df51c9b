//! Escalation, rung by rung: a worker that keeps crashing, a supervisor that gives up on it, and a root that
//! replaces that supervisor, until the root gives up too.
//!
//! `cargo run -p supervisors --example ladder` ends by itself with exit status 70, and prints every report.

use actix::{Actor, Arbiter, AsyncContext};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use supervisors::{
    ChildSpec, Context, Intensity, RestartOutcome, Strategy, SupervisorSpec, TreeOptions, start,
};

/// Works for 20 ms, then meets a bug.
struct Faulty;

impl Actor for Faulty {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_millis(20), |_, _| panic!("the same bug again"));
    }
}

/// Has no bugs, and stands on what `Faulty` does: `rest_for_one` restarts it with its neighbour.
struct Neighbour;

impl Actor for Neighbour {
    type Context = Context<Self>;
}

fn tree() -> ChildSpec {
    let here = Arbiter::current();
    ChildSpec::supervisor("root", &here.clone(), move || {
        let arbiter = here.clone();
        let rung = ChildSpec::supervisor("rung", &here, move || {
            let faulty = ChildSpec::worker("faulty", &arbiter, |_| Ok(Faulty));
            let neighbour = ChildSpec::worker("neighbour", &arbiter, |_| Ok(Neighbour));
            SupervisorSpec::new(
                Strategy::RestForOne,
                Intensity::new(2, 5),
                vec![faulty, neighbour],
            )
        });
        SupervisorSpec::new(Strategy::OneForOne, Intensity::new(1, 5), vec![rung])
    })
}

fn main() -> ExitCode {
    actix::System::new().block_on(async {
        let sink = Arc::new(|report: &supervisors::Report| println!("{}\n", report.render_text()));
        let root = match start(
            tree(),
            TreeOptions {
                sink,
                ..TreeOptions::default()
            },
        )
        .await
        {
            Ok(root) => root,
            Err(error) => {
                eprintln!("the tree does not start: {error}");
                return ExitCode::FAILURE;
            }
        };
        let reason = root.wait().await;
        println!("the root ended: {reason}. What it had tried:");
        for record in root.tree().history() {
            let what = match record.outcome {
                RestartOutcome::Restarted => "restarted",
                RestartOutcome::StartFailed => "start failed",
                RestartOutcome::GaveUp => "gave up",
            };
            println!(
                "  {:<18} {:<13} after {:>6} us, {}",
                record.path, what, record.downtime_us, record.reason
            );
        }
        ExitCode::from(70)
    })
}
