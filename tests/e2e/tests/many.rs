//! Hundreds of references against one server: side by side, and never more than the store is given.

use std::time::{Duration, Instant};

use keyhaul_e2e::{Site, finish, opened};
use keyhaul_servers::{Mode, OpenBao, Proxy};
use serde_json::json;

const COUNT: usize = 500;
/// Each way.
const DELAY: Duration = Duration::from_millis(10);

#[test]
fn five_hundred_references_neither_hammer_a_vault_nor_go_one_by_one() {
    let server = OpenBao::dev();
    let value = |number: usize| format!("what {number} opens");
    let write = |number| {
        let body = json!({"data": {"value": value(number)}});
        (format!("secret/data/web01/{number}"), body)
    };
    server.write_all(&(0..COUNT).map(write).collect::<Vec<_>>());

    // By default, and where the policy says less. In the clear each that is under way has a
    // connection to itself.
    for (lines, most) in [("", 100), ("concurrency = 5", 5)] {
        let proxy = Proxy::to(server.address());
        proxy.set(Mode::Delay(DELAY));
        let site = Site::new();
        site.policy(&format!(
            "version = 1\n[stores.site]\nurl = \"vault+http://{}/secret\"\nkv-version = \"2\"\nauth = {{ method = \"token\", token = \"env:SITE_TOKEN\" }}\n{lines}\n[[routes]]\nmatch = \"**\"\nstore = \"site\"\n",
            proxy.address()
        ));
        let mut resolve = site.keyhaul(["resolve", "--format", "json", "--runtime-dir"]);
        resolve
            .arg(site.runtime())
            .env("SITE_TOKEN", server.root_token())
            .args((0..COUNT).map(|number| format!("id{number}=web01/{number}")));
        let start = Instant::now();
        let done = finish(&mut resolve).ok();
        let took = start.elapsed();

        let values = opened(done.text());
        assert_eq!(values.len(), COUNT);
        for number in 0..COUNT {
            assert_eq!(values[&format!("id{number}")], value(number).as_bytes());
        }
        // Each once.
        let requests = proxy.requests();
        let reads = requests.iter().filter(|line| line.contains("/data/"));
        assert_eq!(reads.count(), COUNT);
        assert!(requests.len() <= COUNT + 3, "{}", requests.len());
        // A request that finds no connection at rest begins one, and takes another that comes back
        // before it is made: some more are made than requests are ever under way. Without a limit
        // there would be hundreds.
        let connections = proxy.connections();
        let mosts = 2..=most + most / 4 + 3;
        assert!(mosts.contains(&connections), "{connections}");
        // One by one each takes a way there and a way back, however fast the machine is.
        let one_by_one = 2 * DELAY * u32::try_from(COUNT).expect("few");
        assert!(took < one_by_one, "{took:?} at {most}");
    }
}
