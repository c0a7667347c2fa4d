//! Several servers that share their storage by raft.

use std::fs;
use std::sync::Arc;

use serde_json::json;

use super::{LIMIT, OpenBao, Setup};
use crate::Authority;
use crate::wait::eventually;

/// Servers in a cluster, over TLS by one authority.
#[derive(Debug)]
pub struct Cluster {
    /// The servers. Each can be asked, stopped and started by itself.
    pub nodes: Vec<OpenBao>,
}

impl Cluster {
    /// A cluster of `nodes`, all of them unsealed, the first one its first leader.
    pub(super) fn start(nodes: usize) -> Self {
        let authority = Arc::new(Authority::new("keyhaul tests"));
        let setup =
            |number: usize| Setup::tls().node(format!("node{number}"), Arc::clone(&authority));
        let first = setup(0).start();
        // Else a new node waits for ten seconds before it votes, and can lead.
        let patience = json!({"server_stabilization_time": "1s"});
        first.write("sys/storage/raft/autopilot/configuration", &patience);
        let mut cluster = Self { nodes: vec![first] };
        for number in 1..nodes {
            let node = cluster.join(&setup(number));
            cluster.nodes.push(node);
        }
        eventually("every node votes", LIMIT * 2, || cluster.voters() == nodes);
        cluster
    }

    fn join(&self, setup: &Setup) -> OpenBao {
        let first = &self.nodes[0];
        let mut node = setup.launch();
        node.root_token.clone_from(&first.root_token);
        node.unseal_key.clone_from(&first.unseal_key);
        let leader = json!({
            "leader_api_addr": first.address(),
            "leader_ca_cert": fs::read_to_string(first.ca_path()).expect("written above"),
        });
        let reply = node.request("POST", "sys/storage/raft/join", "", Some(&leader));
        assert_eq!(reply.status, 200, "joining: {reply:?}");
        node.unseal();
        node
    }

    fn voters(&self) -> usize {
        let configuration = self.leader().read("sys/storage/raft/configuration");
        let servers = configuration["data"]["config"]["servers"].as_array();
        let voters = servers.into_iter().flatten();
        voters.filter(|server| server["voter"] == true).count()
    }

    /// The number of the node that leads, awaited.
    pub fn leader_number(&self) -> usize {
        let mut leader = None;
        eventually("a leader", LIMIT, || {
            leader = self
                .nodes
                .iter()
                .position(|node| node.health() == Some(200));
            leader.is_some()
        });
        leader.expect("awaited")
    }

    /// The node that leads, awaited.
    pub fn leader(&self) -> &OpenBao {
        &self.nodes[self.leader_number()]
    }

    /// Has the leader give up, and waits for another: its number.
    pub fn step_down(&self) -> usize {
        let old = self.leader_number();
        self.nodes[old].step_down();
        eventually("another leader", LIMIT, || {
            let mut nodes = self.nodes.iter().enumerate();
            nodes.any(|(number, node)| number != old && node.health() == Some(200))
        });
        self.leader_number()
    }
}
