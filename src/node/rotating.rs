//! A new cookie, as an operator wants it: opened here, and handed to the connector.

use std::time::{Duration, Instant};

use super::Plan;
use super::surroundings::restarting;
use crate::admin::protocol::{RotateOrder, Rotated, RotatedMember};
use crate::cluster::connector::Rotate;
use crate::cluster::rotation::Outcome;
use crate::limits::COOKIE_GRACE_MAX;
use crate::node_name::NodeName;

/// Does it.
///
/// # Errors
/// One sentence; nothing was changed.
pub(super) async fn rotate(plan: &Plan, order: &RotateOrder) -> Result<Rotated, String> {
    let RotateOrder {
        sealed,
        grace_s,
        only_here,
    } = order;
    let grace = Duration::from_secs((*grace_s).into());
    if grace > COOKIE_GRACE_MAX {
        let hours = COOKIE_GRACE_MAX.as_secs() / 3600;
        return Err(format!("the grace of the old cookie is at most {hours} h"));
    }
    let held = plan.cookies.accepted(Instant::now()).valid;
    let about = RotateOrder::about(&plan.config.name, *grace_s, *only_here);
    let cookie = sealed.open(&held, about);
    let cookie = cookie.ok_or("the new cookie was changed on its way, or is none: nothing was changed")?;
    let wing = plan.wing().ok_or_else(|| restarting("cluster"))?;
    let rotate = Rotate {
        cookie,
        grace,
        only_here: *only_here,
    };
    let rotated = wing.connector.call(rotate).await;
    let rotated = rotated.map_err(|_| restarting("connector"))??;
    let told = |(node, outcome)| told(node, outcome, *grace_s);
    Ok(Rotated {
        before: rotated.before.to_string(),
        after: rotated.after.to_string(),
        grace_s: *grace_s,
        members: rotated.members.into_iter().map(told).collect(),
    })
}

fn told(node: NodeName, outcome: Outcome, grace_s: u32) -> RotatedMember {
    let (state, left_to_do) = match outcome {
        Outcome::Changed { unwritten } => ("changed", unwritten),
        Outcome::Down if grace_s == 0 => (
            "down",
            Some("copy the new cookie file to it before it starts: its old one is refused".into()),
        ),
        Outcome::Down => (
            "down",
            Some(
                "it gets the new cookie if it returns within the grace; after it, copy the file to it".into(),
            ),
        ),
        Outcome::Unconfirmed => (
            "unconfirmed",
            Some("it takes both cookies and changes once its link is back: see its log".into()),
        ),
    };
    RotatedMember {
        node,
        state: state.into(),
        left_to_do,
    }
}
