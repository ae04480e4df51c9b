//! A visit: one HTTP connection, request after request.
//!
//! Parent:   visits (dynamic), temporary
//! Owns:     the socket
//! Asked by: a browser, a scraper, a program
//! Tells:    whoever a request is about, through [`Hall`]
//! Dies of:  our bugs only; then this connection is closed, and no other hears of it

use std::convert::Infallible;
use std::net::TcpStream;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, WrapFuture};
use actix_rt::ArbiterHandle;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use supervisors::{ChildSpec, Context, InitError, Restart, Shutdown};
use tokio::time::{sleep, timeout};

use super::hall::Hall;
use crate::limits::{HTTP_ANSWER_MAX, HTTP_HEAD_BYTES_MAX, HTTP_IDLE_MAX, HTTP_VISIT_MAX};

/// Headers of one request.
const HEADERS_MAX: usize = 64;

/// One connection.
pub(super) struct Visit {
    hall: Arc<Hall>,
    stream: Option<TcpStream>,
}

impl Visit {
    /// The child of `visits` for one socket.
    pub(super) fn spec(arbiter: ArbiterHandle, hall: &Arc<Hall>, stream: TcpStream) -> ChildSpec {
        let id = match stream.peer_addr() {
            Ok(peer) => peer.to_string(),
            Err(_) => "unknown".into(),
        };
        let (hall, stream) = (hall.clone(), Mutex::new(Some(stream)));
        let init = move |_: &mut Context<Self>| {
            let taken = stream.lock().ok().and_then(|mut stream| stream.take());
            let stream = taken.ok_or_else(|| InitError::failed("the socket has been taken"))?;
            stream.set_nodelay(true)?;
            Ok(Self {
                hall: hall.clone(),
                stream: Some(stream),
            })
        };
        ChildSpec::worker(id, &arbiter, init)
            .restart(Restart::Temporary)
            .shutdown(Shutdown::BrutalKill)
    }
}

impl Actor for Visit {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let stream = self.stream.take().map(tokio::net::TcpStream::from_std);
        let Some(Ok(stream)) = stream else {
            return ctx.stop();
        };
        let served = serve(self.hall.clone(), stream).into_actor(self);
        ctx.spawn(served.map(|(), _, ctx| ctx.stop()));
    }
}

/// Answers until the visitor goes, says nothing for too long, or has been here long enough.
async fn serve(hall: Arc<Hall>, stream: tokio::net::TcpStream) {
    let service = service_fn(move |request| {
        let hall = hall.clone();
        async move { Ok::<_, Infallible>(hall.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_IDLE_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What goes wrong on a connection is the visitor's: it is closed, and they know.
        _ = connection.as_mut() => return,
        () = sleep(HTTP_VISIT_MAX) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(HTTP_ANSWER_MAX, connection).await;
}
