//! Calls whose messages go both ways: see [`Dialogue`].

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::server::SendResponse;
use http::HeaderMap;
use http_body_util::BodyExt;

use super::answer::{Refusal, Verdict};
use super::body::PREFIX;
use super::export::Receiver;
use super::grpc;
use super::http2::CallBody;
use crate::dialogue::{Dialogue, Talk};

/// How long a message from the client may be.
const MAX_MESSAGE: usize = 64 << 10;
/// How long a client may take to read a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a call ends.
enum End {
    /// There is nothing more to say.
    Done,
    /// Something is wrong with what the client says.
    Failed(Refusal),
    /// There is no client any more.
    Gone,
}

/// Answers a call until one side ends it.
pub(super) async fn hold(
    receiver: &Receiver,
    dialogue: &Arc<dyn Dialogue>,
    headers: &HeaderMap,
    mut body: CallBody,
    mut respond: SendResponse<Bytes>,
) {
    let sender = match receiver.sender(headers).await {
        Ok(sender) => sender,
        Err(refusal) => {
            let answer = grpc::refused(receiver, &refusal);
            let _ = respond.send_response(answer, true);
            return;
        }
    };
    let head = grpc::head();
    let Ok(mut stream) = respond.send_response(head, false) else {
        return;
    };
    let mut talk = dialogue.begin(&sender);
    let end = exchange(receiver, &mut *talk, &mut body, &mut stream).await;
    // Before the client hears of it, so that what it sees next is what there is.
    drop(talk);
    let trailers = match end {
        End::Gone => return,
        End::Done => grpc::trailers(None),
        End::Failed(refusal) => grpc::trailers(Some(&Verdict::from(&refusal))),
    };
    let _ = stream.send_trailers(trailers);
}

async fn exchange(
    receiver: &Receiver,
    talk: &mut dyn Talk,
    body: &mut CallBody,
    stream: &mut SendStream<Bytes>,
) -> End {
    let doors = &receiver.inlet.doors;
    let mut heard = BytesMut::new();
    loop {
        let say = tokio::select! {
            // Its client finds another collector.
            () = doors.leaving.cancelled() => return End::Done,
            () = doors.closing.cancelled() => return End::Done,
            said = talk.say() => said,
            frame = body.frame() => {
                let Some(Ok(frame)) = frame else {
                    return End::Gone;
                };
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                heard.extend_from_slice(&data);
                if let Err(why) = hear(talk, &mut heard) {
                    return End::Failed(Refusal::Malformed(why.into()));
                }
                continue;
            }
        };
        let Some(message) = say else {
            return End::Done;
        };
        match tokio::time::timeout(PATIENCE, send(stream, &message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return End::Gone,
        }
    }
}

/// Takes all whole messages.
fn hear(talk: &mut dyn Talk, heard: &mut BytesMut) -> Result<(), String> {
    while let Some(&[flag, a, b, c, d]) = heard.first_chunk::<PREFIX>() {
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 0 {
            return Err("messages of this method must not be compressed".to_owned());
        }
        if len > MAX_MESSAGE {
            return Err(format!(
                "the message is larger than the limit of {MAX_MESSAGE} bytes"
            ));
        }
        if heard.len() < PREFIX + len {
            return Ok(());
        }
        heard.advance(PREFIX);
        talk.hear(&heard.split_to(len))?;
    }
    Ok(())
}

/// Sends a message as the client makes room for it.
async fn send(stream: &mut SendStream<Bytes>, message: &[u8]) -> Result<(), h2::Error> {
    let mut data = BytesMut::with_capacity(PREFIX + message.len());
    data.put_u8(0);
    data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    data.put_slice(message);
    let mut data = data.freeze();
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await;
        let Some(room) = room.transpose()? else {
            return Err(h2::Reason::CANCEL.into());
        };
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, false)?;
    }
    Ok(())
}
