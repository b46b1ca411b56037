//! Which of several sockets on one port gets a datagram: the kernel runs a few instructions on its first bytes
//! (`SO_ATTACH_REUSEPORT_CBPF`).
//!
//! A sealed frame goes to the socket of its lane, modulo the number of threads: whoever owns the lane's replay window
//! reads it. Everything else goes to a socket of its own behind those.

use std::io;

use mesh_wire::frame::SEALED;
use nix::libc::{
    BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, sock_filter,
    sock_fprog,
};
use nix::sys::socket::{setsockopt, sockopt};

use super::UdpSocket;

/// Adds sockets to the bound one of a group until there is one for each thread and one for what is not a frame, and
/// has the kernel choose among them. After an error the group is as it was.
pub(super) fn spread(group: &mut Vec<UdpSocket>, threads: usize) -> io::Result<()> {
    let result = try_spread(group, threads);
    if result.is_err() {
        group.truncate(1);
        // What it allows, nobody else uses: a program that binds the port later has to ask for the same.
        let _ = group[0].socket.set_reuse_port(false);
    }
    result
}

fn try_spread(group: &mut Vec<UdpSocket>, threads: usize) -> io::Result<()> {
    // The first one was bound without sharing, so that a port that another program holds is refused.
    group[0].socket.set_reuse_port(true)?;
    let address = group[0].local;
    while group.len() <= threads {
        group.push(UdpSocket::bind(address, true)?);
    }
    let frames = u32::try_from(threads).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut program = program(frames);
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len: length, filter: program.as_mut_ptr() };
    setsockopt(&group[0].socket, sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

/// Returns the number of a socket in its group, in the order in which they were bound. A datagram that is too short
/// for an instruction goes to the first one.
fn program(frames: u32) -> [sock_filter; 6] {
    [
        step(BPF_LD | BPF_B | BPF_ABS, 0),
        sock_filter { jt: 1, ..step(BPF_JMP | BPF_JEQ | BPF_K, u32::from(SEALED)) },
        step(BPF_RET | BPF_K, frames),
        step(BPF_LD | BPF_B | BPF_ABS, LANE),
        step(BPF_ALU | BPF_MOD | BPF_K, frames),
        step(BPF_RET | BPF_A, 0),
    ]
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: u16::try_from(code).expect("codes have 16 bits"), jt: 0, jf: 0, k }
}

/// Where the low byte of a frame's lane is; there are 16 lanes at most.
const LANE: u32 = 1;
