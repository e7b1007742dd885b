//! stub
mod support;
#[test]
fn x() {
    let c = support::Certs::mint();
    let p = support::Program::ingress(&c, ([127, 0, 0, 1], 1).into(), &[]);
    println!("{}", p.address);
}
