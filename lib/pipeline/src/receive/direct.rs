//! Exports without a connection, for simulations: all that a request meets between its body and its answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;

use super::Inlet;
use super::answer::{Ending, Refusal, Verdict};
use super::export::{Point, Receiver};
use super::slots::Line;
use crate::codec::{Codings, Form};
use crate::config::Listener;
use crate::decompress::Encoding;
use crate::outcome::Outcome;

/// Takes requests of OTLP in protobuf, as a listener for HTTP does. Clones are the same way in.
#[derive(Clone)]
pub struct Direct {
    inlet: Arc<Inlet>,
    point: Arc<Point>,
}

/// What a sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// All is well, but for so many spans.
    Accepted {
        /// Spans refused for good.
        rejected: u64,
    },
    /// It may be sent again.
    Retry(Arc<str>),
    /// It must not be sent again.
    Refused(Arc<str>),
    /// Nobody takes requests here.
    Closed,
}

impl Direct {
    pub(crate) fn new(inlet: Arc<Inlet>) -> Self {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let point = Point::new(&Listener::http(nowhere), &mut Codings::default());
        Self {
            inlet,
            point: Arc::new(point),
        }
    }

    /// Takes a request, and waits for its answer. Dropped, the sender has gone.
    pub async fn export(&self, peer: IpAddr, body: Bytes) -> Answer {
        let doors = &self.inlet.doors;
        if doors.closing.is_cancelled() {
            return Answer::Closed;
        }
        let receiver = Receiver {
            inlet: Arc::clone(&self.inlet),
            point: Arc::clone(&self.point),
            address: SocketAddr::new(peer, 0),
            line: Arc::<Line>::default(),
        };
        // The pipeline waits for it before it ends, as for a connection.
        let ending = doors.connections.track_future(export(&receiver, body));
        match ending.await {
            Ending::Done { rejected, .. } => Answer::Accepted { rejected },
            Ending::Failed(Verdict { retry, message, .. }) => match retry {
                true => Answer::Retry(message),
                false => Answer::Refused(message),
            },
        }
    }
}

async fn export(receiver: &Receiver, body: Bytes) -> Ending {
    let headers = HeaderMap::new();
    let mut body = Full::new(body);
    let form = Form {
        encoding: Encoding::Identity,
        coding: Arc::clone(&receiver.point.protobuf),
    };
    let mut export = receiver.export(&headers, &body);
    let work = async {
        let sender = export.begin()?;
        let received = export.read(&mut body, &form).await?;
        export.process(received, form, sender, None).await
    };
    let result: Result<Outcome, Refusal> = work.await;
    export.ending(result)
}
