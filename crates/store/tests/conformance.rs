//! Every engine keeps the one contract.

use outlive_store::{Embedded, Fault, Faulty, Memory, conformance};

#[tokio::test]
async fn memory_keeps_the_contract() {
    conformance::run_all(async || Memory::default()).await;
}

#[tokio::test]
async fn faulty_without_faults_keeps_the_contract() {
    conformance::run_all(async || Faulty::new(Memory::default(), |_| Fault::None)).await;
}

#[tokio::test]
async fn embedded_keeps_the_contract() {
    let directories = std::cell::RefCell::new(Vec::new());
    conformance::run_all(async || {
        let directory = tempfile::tempdir().unwrap();
        let engine = Embedded::open(directory.path()).unwrap();
        directories.borrow_mut().push(directory);
        engine
    })
    .await;
}
