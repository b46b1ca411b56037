//! Tells the files that are taken in from the programs to leave their own tests out.

fn main() {
    println!("cargo::rustc-cfg=modelled");
    println!("cargo::rerun-if-changed=build.rs");
}
