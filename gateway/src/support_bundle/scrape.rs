//! One scrape of the running gateway's metrics, bounded in time and size.

use std::net::SocketAddr;
use std::time::Duration;

use lianxin_types::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(5);
const BYTES_MAX: u64 = 1024 * 1024;

/// What `/readyz` and `/metrics` say, or that nobody answers.
pub(super) async fn scrape(address: SocketAddr, clock: &dyn Clock) -> String {
    let mut text = String::new();
    for page in ["/readyz", "/metrics"] {
        let answer = tokio::select! {
            answer = get(address, page) => answer.unwrap_or_else(|error| format!("no answer: {}", error.kind())),
            () = clock.sleep(WITHIN) => format!("no answer within {} s", WITHIN.as_secs()),
        };
        text += &format!("# {page}\n{}\n", answer.trim_end());
    }
    text
}

async fn get(address: SocketAddr, page: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(format!("GET {page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.lines().next().unwrap_or_default().to_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(if status.contains(" 200 ") { body.to_owned() } else { format!("{status}\n{body}") })
}
