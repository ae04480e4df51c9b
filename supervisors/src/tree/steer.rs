//! What an operator can do to a child whose path is known.

use super::Tree;
use crate::error::{CallError, ChildError, NoSuchProcess, StartError};
use crate::exit::ExitReason;
use crate::office::Door;
use crate::pid::Pid;
use crate::request::{DeleteChild, RestartChild, RestartError, TerminateChild};
use std::sync::Arc;
use std::time::Duration;

/// Why a child was not stopped, started or forgotten. It is as it was, unless its supervisor is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SteerError {
    /// No supervisor has such a child.
    #[error(transparent)]
    NoSuchProcess(#[from] NoSuchProcess),
    /// The top process is nobody's child: only the whole tree can be stopped.
    #[error("not_found: {0} has no supervisor")]
    Root(String),
    /// Its supervisor is dynamic: it forgets children that do not run, so there is none to be started or
    /// deleted (OTP `{error, simple_one_for_one}`).
    #[error(
        "simple_one_for_one: the supervisor of {0} is dynamic and keeps no spec of a child that does not run"
    )]
    Dynamic(String),
    /// The supervisor refused.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The supervisor ended before it answered.
    #[error("its supervisor cannot be reached: {0}")]
    Unreachable(#[from] CallError),
}

impl From<RestartError> for SteerError {
    fn from(error: RestartError) -> Self {
        match error {
            RestartError::Child(error) => error.into(),
            RestartError::Start(error) => error.into(),
        }
    }
}

/// The parent's path and the child's id; none for the root.
pub(super) fn split(path: &str) -> Option<(&str, Arc<str>)> {
    let (parent, segment) = path.rsplit_once('/')?;
    Some((parent, segment.replace("%2F", "/").replace("%25", "%").into()))
}

impl Tree {
    /// Makes the process at `path` panic with `why` when it is polled next. Only that process.
    ///
    /// # Errors
    /// [`NoSuchProcess`] if nobody lives there.
    pub fn crash(&self, path: &str, why: &str) -> Result<(), NoSuchProcess> {
        self.alive(path)?.crash(why);
        Ok(())
    }

    /// Makes the process at `path` hold its thread for `time` when it is polled next, as a handler that does
    /// not return would: everybody on that arbiter waits, and after [`TreeOptions::unresponsive_after`] it is
    /// reported. Then all go on; nothing ends.
    ///
    /// [`TreeOptions::unresponsive_after`]: crate::TreeOptions::unresponsive_after
    ///
    /// # Errors
    /// [`NoSuchProcess`] if nobody lives there.
    pub fn stall(&self, path: &str, time: Duration) -> Result<(), NoSuchProcess> {
        self.alive(path)?.stall(time);
        Ok(())
    }

    /// Kills the process at `path` (OTP `exit(Pid, kill)`): it ends without a callback, and its supervisor
    /// deals with that as with any other abnormal exit. One inside a handler ends when the handler returns.
    ///
    /// # Errors
    /// [`NoSuchProcess`] if nobody lives there.
    pub fn kill(&self, path: &str) -> Result<(), NoSuchProcess> {
        self.alive(path)?.exit(ExitReason::Killed);
        Ok(())
    }

    /// Stops the child at `path` by its shutdown protocol and waits for its end (OTP `terminate_child/2`).
    /// Its supervisor does not start it again, but keeps its spec, unless it is temporary or the supervisor
    /// dynamic.
    ///
    /// # Errors
    /// See [`SteerError`].
    pub async fn terminate_child(&self, path: &str) -> Result<(), SteerError> {
        let (door, id) = self.door(path)?;
        let terminate = TerminateChild::new(id);
        match door {
            Door::Named(supervisor) => supervisor.call(terminate).await??,
            Door::Dynamic(supervisor) => supervisor.call(terminate).await??,
        }
        Ok(())
    }

    /// Starts the child at `path` again that was stopped or has ended (OTP `restart_child/2`).
    ///
    /// # Errors
    /// [`ChildError::Running`] if it runs; see [`SteerError`].
    pub async fn restart_child(&self, path: &str) -> Result<Pid, SteerError> {
        match self.door(path)? {
            (Door::Named(supervisor), id) => Ok(supervisor.call(RestartChild(id)).await??),
            (Door::Dynamic(_), _) => Err(self.dynamic(path)),
        }
    }

    /// Lets the supervisor forget the child at `path`, which does not run (OTP `delete_child/2`).
    ///
    /// # Errors
    /// [`ChildError::Running`] if it runs; see [`SteerError`].
    pub async fn delete_child(&self, path: &str) -> Result<(), SteerError> {
        match self.door(path)? {
            (Door::Named(supervisor), id) => Ok(supervisor.call(DeleteChild(id)).await??),
            (Door::Dynamic(_), _) => Err(self.dynamic(path)),
        }
    }

    /// A child of a dynamic supervisor is there as long as it runs, and no longer.
    fn dynamic(&self, path: &str) -> SteerError {
        match self.find(path) {
            Some(_) => ChildError::Running.into(),
            None => SteerError::Dynamic(path.to_owned()),
        }
    }

    fn alive(&self, path: &str) -> Result<Pid, NoSuchProcess> {
        self.find(path).ok_or_else(|| NoSuchProcess(path.to_owned()))
    }

    /// How to ask the supervisor of `path`, and the child's id there.
    fn door(&self, path: &str) -> Result<(Door, Arc<str>), SteerError> {
        let Some((parent, id)) = split(path) else {
            return match self.find(path) {
                Some(_) => Err(SteerError::Root(path.to_owned())),
                None => Err(NoSuchProcess(path.to_owned()).into()),
            };
        };
        let office = self.alive(parent).map_err(|_| NoSuchProcess(path.to_owned()))?;
        let door = office.0.office.get().and_then(|office| office.door());
        let door = door.ok_or_else(|| NoSuchProcess(path.to_owned()))?;
        Ok((door, id))
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_path_is_split_into_supervisor_and_unescaped_id() {
        assert_eq!(
            split("root/topics/a%2F%2B%25"),
            Some(("root/topics", "a/%2B%".into()))
        );
        assert_eq!(split("root"), None);
    }
}
