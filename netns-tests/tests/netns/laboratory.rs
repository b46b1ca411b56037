//! The laboratory itself, with plain tools: a scenario that fails should not be the laboratory's fault.

use std::path::Path;
use std::time::Duration;

use lab::{Lab, Underlay, scenario};

#[test]
fn hosts_of_a_switch_reach_each_other() {
    scenario("hosts_of_a_switch_reach_each_other", |lab| {
        let public = lab.public(Underlay::Both)?;
        let (one, two) = (public.host("one")?, public.host("two")?);
        one.run("ping").args(["-n", "-c", "1", "-W", "2", &two.address().to_string()]).ok()?;
        one.run("ping").args(["-n", "-c", "1", "-W", "2", "2001:db8::2"]).ok()?;
        assert!(one.open_ports()?.is_empty());
        Ok(())
    });
}

#[test]
fn command_that_hangs_is_ended() {
    scenario("command_that_hangs_is_ended", |lab| {
        let host = lab.namespace("alone")?;
        let output = host.run("sleep").args(["60"]).limit(Duration::from_millis(200)).output()?;
        assert_eq!(output.code, Some(124));
        Ok(())
    });
}

#[test]
fn nothing_is_left_after_a_panic() {
    scenario("nothing_is_left_after_a_panic", |lab| {
        let mut namespace = String::new();
        let mut pid = 0;
        let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let inner = Lab::new("inner").unwrap();
            let host = inner.namespace("inner").unwrap();
            namespace = host.namespace().to_owned();
            let sleeper = host.run("sleep").args(["60"]).spawn("sleeper").unwrap();
            pid = sleeper.pid();
            panic!("on purpose");
        }));
        assert!(attempt.is_err());
        let names = lab.namespace("look")?.run("ip").args(["netns", "list"]).ok()?.stdout;
        assert!(!names.contains(&namespace), "{namespace} is still there");
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        Ok(())
    });
}
