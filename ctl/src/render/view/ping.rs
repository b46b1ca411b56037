//! `ping`.

use mesh_control::{ClientError, PingAnswer};
use serde_json::{Value, json};

use super::super::units::{clean, rtt};

/// One reply.
pub(crate) fn reply(answer: &PingAnswer, seq: u32) -> String {
    let address = answer.address.map(|address| format!(" ({address})")).unwrap_or_default();
    let size = answer.size.map(|size| format!(" size={size}")).unwrap_or_default();
    format!(
        "reply from {}{address} via {}: seq={seq}{size} rtt={}",
        clean(&answer.peer),
        answer.path,
        rtt(answer.rtt_ms)
    )
}

/// None.
pub(crate) fn loss(peer: &str, seq: u32, error: &ClientError) -> String {
    format!("no reply from {peer}: seq={seq} {error}")
}

/// What became of all of them.
#[derive(Debug)]
pub(crate) struct PingSummary {
    peer: String,
    /// How many were sent.
    pub(crate) sent: u32,
    rtts: Vec<f64>,
}

impl PingSummary {
    pub(crate) fn new(peer: &str) -> Self {
        Self { peer: peer.to_owned(), sent: 0, rtts: Vec::new() }
    }

    /// Counts a reply, which also knows the peer's proper name.
    pub(crate) fn replied(&mut self, answer: &PingAnswer) {
        self.peer.clone_from(&answer.peer);
        self.rtts.push(answer.rtt_ms);
    }

    /// How many replies came.
    pub(crate) fn received(&self) -> u32 {
        u32::try_from(self.rtts.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn text(&self) -> String {
        let (sent, received) = (self.sent, self.received());
        let mut text = format!("{}: {sent} sent, {received} received", clean(&self.peer));
        if sent > 0 {
            text.push_str(&format!(", {}% loss", self.loss_percent()));
        }
        if let Some((min, avg, max)) = self.extremes() {
            text.push_str(&format!(", rtt min/avg/max {} / {} / {}", rtt(min), rtt(avg), rtt(max)));
        }
        text.push('\n');
        text
    }

    pub(crate) fn json(&self) -> Value {
        let extremes = self.extremes();
        json!({
            "schema": "shadowmesh.ping_summary/1",
            "peer": self.peer,
            "sent": self.sent,
            "received": self.received(),
            "loss_percent": self.loss_percent(),
            "rtt_min_ms": extremes.map(|(min, _, _)| min),
            "rtt_avg_ms": extremes.map(|(_, avg, _)| avg),
            "rtt_max_ms": extremes.map(|(_, _, max)| max),
        })
    }

    fn loss_percent(&self) -> u64 {
        let lost = u64::from(self.sent.saturating_sub(self.received()));
        (lost * 100).checked_div(u64::from(self.sent)).unwrap_or(0)
    }

    fn extremes(&self) -> Option<(f64, f64, f64)> {
        let min = self.rtts.iter().copied().reduce(f64::min)?;
        let max = self.rtts.iter().copied().reduce(f64::max)?;
        Some((min, self.rtts.iter().sum::<f64>() / f64::from(self.received()), max))
    }
}
