//! The tree that a configuration would start, without starting it.

use std::sync::Arc;

use actix_rt::System;
use supervisors::Outline;

use super::{Plan, terms_unread, where_to_listen};
use crate::admin::http::Entrance;
use crate::broker::door::Door;
use crate::broker::tables::Arbiters;
use crate::config::Config;
use crate::registry::{Cookie, Endpoint};
use crate::store::Store;
use crate::tree;

/// Stands where the secret would: nothing is opened that could prove it.
const NO_COOKIE: &str = "no secret, only a drawing";

/// Every process of the tree, parents before children. No port, file or thread is opened.
///
/// # Errors
/// One sentence, when a listener's host is not known or the environment is wrong.
pub fn outline(config: Config) -> Result<Vec<Outline>, String> {
    let unopened = |listener| {
        let address = where_to_listen(listener)?;
        let terms = terms_unread(&config, listener, &address);
        Ok::<_, String>(Door::unopened(address, terms))
    };
    let doors = config
        .listeners
        .iter()
        .map(unopened)
        .collect::<Result<Vec<_>, _>>()?;
    let entrance = config.admin.as_ref().map(Entrance::unopened).transpose()?;
    let cookie = Cookie::from_text(NO_COOKIE).map_err(|error| error.to_string())?;
    let endpoint = Endpoint::from_environment(Some(&config.name)).map_err(|error| error.to_string())?;
    System::new().block_on(async move {
        let here = System::current().arbiter().clone();
        let workers = vec![here.clone(); config.worker_threads];
        let store = (Store::memory(), here.clone());
        let arbiters = Arbiters::new(workers, here.clone(), here);
        let plan = Plan::new(
            config,
            (cookie.into(), None),
            Arc::default(),
            endpoint,
            (doors, entrance),
            store,
            arbiters,
        );
        Ok(tree::root(&plan).outline())
    })
}
