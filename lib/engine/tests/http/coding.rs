//! Bodies in wrappings, in and out.

use std::io::{Read, Write};

use super::support::{Reply, ask, database, escape, sql};

fn gzip(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

fn zlib(raw: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

fn lz4(raw: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

fn zstd(raw: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(raw, 1).unwrap()
}

/// ClickHouse's compressed block, not compressed.
fn block(raw: &[u8]) -> Vec<u8> {
    let mut block = vec![0x02];
    block.extend((raw.len() as u32 + 9).to_le_bytes());
    block.extend((raw.len() as u32).to_le_bytes());
    block.extend(raw);
    let sum = cityhash_rs::cityhash_102_128(&block).rotate_right(64);
    [&sum.to_le_bytes()[..], &block].concat()
}

fn unwrap(reply: &Reply) -> Vec<u8> {
    let mut raw = Vec::new();
    let body = &reply.body[..];
    match reply.header("content-encoding") {
        "" => raw = body.to_vec(),
        "gzip" => drop(
            flate2::read::GzDecoder::new(body)
                .read_to_end(&mut raw)
                .unwrap(),
        ),
        "deflate" => drop(
            flate2::read::ZlibDecoder::new(body)
                .read_to_end(&mut raw)
                .unwrap(),
        ),
        "lz4" => drop(
            lz4_flex::frame::FrameDecoder::new(body)
                .read_to_end(&mut raw)
                .unwrap(),
        ),
        "zstd" => raw = zstd::stream::decode_all(body).unwrap(),
        other => panic!("{other}"),
    }
    raw
}

#[tokio::test]
async fn out() {
    for accept in [
        "gzip",
        "deflate",
        "lz4",
        "zstd",
        "br, gzip;q=0.5",
        "identity",
        "gzip;q=0",
    ] {
        for rows in [3_u64, 60_000] {
            let query = format!("SELECT number FROM numbers({rows}) FORMAT RowBinary");
            let reply = ask("", query)
                .await
                .header("accept-encoding", accept)
                .send()
                .await;
            let coding = reply.header("content-encoding").to_owned();
            let expect = match accept {
                "br, gzip;q=0.5" => "gzip",
                "identity" | "gzip;q=0" => "",
                accept => accept,
            };
            assert_eq!(coding, expect, "{accept}");
            let raw = unwrap(&reply);
            let expect: Vec<u8> = (0..rows).flat_map(u64::to_le_bytes).collect();
            assert!(raw == expect, "{accept} {rows}");
        }
    }
    let plain = ask("enable_http_compression=0", "SELECT 1").await;
    let reply = plain.header("accept-encoding", "gzip").send().await;
    assert_eq!(reply.text(), "1\n");
}

#[tokio::test]
async fn inwards() {
    let d = database().await;
    sql(&format!(
        "CREATE TABLE {d}.t (a String) ENGINE = MergeTree ORDER BY a"
    ))
    .await;
    let query = escape(&format!("INSERT INTO {d}.t FORMAT TSV"));
    let raw = b"one\n\ntwo\n";
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("gzip", gzip(raw), ""),
        ("deflate", zlib(raw), ""),
        ("lz4", lz4(raw), ""),
        ("zstd", zstd(raw), ""),
        ("identity", block(raw), "&decompress=1"),
        ("gzip", gzip(&block(raw)), "&decompress=1"),
        ("gzip", [gzip(b"one\n\n"), gzip(b"two\n")].concat(), ""),
    ];
    for (coding, body, more) in cases {
        let request = ask(&format!("query={query}{more}"), body).await;
        let reply = request.header("content-encoding", coding).send().await;
        assert_eq!(reply.status, 200, "{coding}{more}: {}", reply.text());
        let rows = sql(&format!("SELECT a FROM {d}.t ORDER BY a")).await;
        assert_eq!(rows, "\none\ntwo\n", "{coding}{more}");
        sql(&format!("TRUNCATE TABLE {d}.t")).await;
    }
    // A statement may be wrapped too.
    let reply = ask("", gzip(b"SELECT 1"))
        .await
        .header("content-encoding", "gzip")
        .send()
        .await;
    assert_eq!(reply.text(), "1\n");
    // What is broken is refused, and nothing of it is kept.
    let mut torn = block(raw);
    torn[20] ^= 1;
    for (coding, body, more) in [
        ("gzip", raw.to_vec(), ""),
        ("zstd", raw.to_vec(), ""),
        ("lz4", raw.to_vec(), ""),
        ("deflate", raw.to_vec(), ""),
        ("gzip", gzip(raw)[..15].to_vec(), ""),
        ("identity", torn, "&decompress=1"),
        ("identity", raw.to_vec(), "&decompress=1"),
    ] {
        let request = ask(&format!("query={query}{more}"), body).await;
        let reply = request.header("content-encoding", coding).send().await;
        assert_eq!(
            (reply.status.as_u16(), reply.code()),
            (400, 271),
            "{coding}: {}",
            reply.text()
        );
    }
    assert_eq!(sql(&format!("SELECT count() FROM {d}.t")).await, "0\n");
}

/// `compress=1`: ClickHouse's own blocks, whole and streamed.
#[tokio::test]
async fn blocks_out() {
    for rows in [3_u64, 60_000] {
        let query = format!("SELECT number FROM numbers({rows}) FORMAT RowBinary");
        let reply = ask("compress=1", query).await.send().await;
        let mut rest = &reply.body[..];
        let mut raw = Vec::new();
        while !rest.is_empty() {
            let size = u32::from_le_bytes(rest[17..21].try_into().unwrap()) as usize;
            let plain = u32::from_le_bytes(rest[21..25].try_into().unwrap()) as usize;
            let packed = &rest[16..16 + size];
            let sum = cityhash_rs::cityhash_102_128(packed).rotate_right(64);
            assert_eq!(sum.to_le_bytes(), rest[..16]);
            assert_eq!(packed[0], 0x82);
            raw.extend(lz4_flex::block::decompress(&packed[9..], plain).unwrap());
            rest = &rest[16 + size..];
        }
        let expect: Vec<u8> = (0..rows).flat_map(u64::to_le_bytes).collect();
        assert!(raw == expect, "{rows}");
    }
}
