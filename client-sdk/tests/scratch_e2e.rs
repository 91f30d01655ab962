use lianxin_certs_dev::{FederationPlan, Minted, mint};
use lianxin_sdk::*;
use lianxin_types::SystemClock;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct World {
    minted: Minted,
    folder: tempfile::TempDir,
    gateway: Option<Child>,
    port: u16,
}
impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let plan = FederationPlan { port, ..FederationPlan::default() };
        let minted = mint(&plan, &folder.path().join("fed"), &SystemClock).unwrap();
        let mut w = Self { minted, folder, gateway: None, port };
        w.write();
        w.start();
        w
    }
    fn write(&self) {
        let f = self.folder.path();
        let g = self.minted.gateway();
        let lists: Vec<String> =
            self.minted.revocation_list_files().unwrap().iter().map(|p| format!("{:?}", p)).collect();
        std::fs::write(f.join("gw.toml"), format!("zone=\"cn-zj-1\"\nlisten=\"127.0.0.1:{}\"\ndrain_seconds_max=5\n[tls]\ncertificate={:?}\nkey={:?}\n[trust]\nroots={:?}\nbundle={:?}\nrevocation_lists=[{}]\n[store]\nengine=\"sled\"\nfolder={:?}\n[audit]\npseudonym_key={:?}\n[log]\nfilter=\"info\"\n",
            self.port, g.tls_certificate, g.tls_key, self.minted.roots_file(), self.minted.bundle_file(), lists.join(","), f.join("zone"), f.join("pk"))).unwrap();
    }
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open("/tmp/scratch-gw.log").unwrap();
        let c = Command::new("/work/main/target/debug/lianxin-gateway")
            .arg("serve")
            .arg("--config")
            .arg(self.folder.path().join("gw.toml"))
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.gateway = Some(c);
    }
    fn kill(&mut self) {
        let mut c = self.gateway.take().unwrap();
        c.kill().unwrap();
        c.wait().unwrap();
    }
    fn config(&self, d: &str, app: &str) -> Config {
        Config::from_certs_dev(self.minted.folder(), d, app, self.folder.path().join(format!("state-{d}-{app}")))
            .unwrap()
    }
    async fn client(&self, d: &str, app: &str) -> Client {
        let c = Client::open(self.config(d, app)).await.unwrap();
        c.connected().await.unwrap();
        c
    }
}
impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut c) = self.gateway.take() {
            let _ = c.kill();
            let _ = c.wait();
        }
        let _ = Path::new("x");
    }
}

fn label() -> Label {
    Label::new(Classification::General3, "联合核查", "审计法", None).unwrap()
}
fn deps(d: &[&str]) -> Vec<DepartmentId> {
    d.iter().map(|d| d.parse().unwrap()).collect()
}

async fn invite(a: &Channel, b: &Client) -> Channel {
    // key packages may still be on their way
    for _ in 0..50 {
        match a.invite(&[b.device().clone()]).await {
            Ok(_) => break,
            Err(ClientError::Refused(p)) if p.code == ReasonCode::NoKeyPackage => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            Err(e) => panic!("{e:?}"),
        }
    }
    let i = b.invitations().next().await.unwrap().unwrap();
    assert_eq!(i.channel, a.id());
    b.accept(i).await.unwrap()
}

fn logs() {
    let _ = tracing_subscriber_init();
}
fn tracing_subscriber_init() -> Option<()> {
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn talk() {
    logs();
    let mut w = World::new();
    let a = w.client("jiwei", "app-1").await;
    let b = w.client("shenji", "app-1").await;
    let t = Instant::now();
    let ca = a.create(label(), &deps(&["jiwei", "shenji", "weijian"])).await.unwrap();
    println!("create {:?}", t.elapsed());
    let t = Instant::now();
    let cb = invite(&ca, &b).await;
    println!("invite+accept {:?}", t.elapsed());
    let t = Instant::now();
    let r = ca.send("你好").await.unwrap();
    println!("send {:?} {r:?}", t.elapsed());
    println!("b info {:?}", cb.info().await); let mut mb = cb.receive();
    let m = match tokio::time::timeout(Duration::from_secs(3), mb.next()).await { Ok(m) => m.unwrap().unwrap(), Err(_) => { println!("b info {:?}", cb.info().await); let mut e = b.events(); while let Ok(x) = tokio::time::timeout(Duration::from_secs(1), e.next()).await { println!("{x:?}"); } panic!() } };
    assert_eq!(m.text(), Some("你好"));
    assert_eq!(m.sequence, r.sequence);
    let mut ma = ca.receive();
    cb.send("收到").await.unwrap();
    assert_eq!(ma.next().await.unwrap().unwrap().text(), Some("收到"));
    // many at once, both ways, in order
    let t = Instant::now();
    let n = 300;
    let s1 = {
        let c = ca.clone();
        tokio::spawn(async move {
            let mut v = vec![];
            for i in 0..n {
                let c = c.clone();
                v.push(c.clone());
                let _ = i;
            }
            let mut js = tokio::task::JoinSet::new();
            for i in 0..n {
                let c = ca_clone(&v[0]);
                js.spawn(async move { c.send(format!("a{i}")).await.unwrap() });
                tokio::task::yield_now().await;
            }
            while let Some(r) = js.join_next().await {
                r.unwrap();
            }
        })
    };
    for i in 0..50 {
        cb.send(format!("b{i}")).await.unwrap();
    }
    s1.await.unwrap();
    println!("350 messages {:?}", t.elapsed());
    let mut got = vec![];
    for _ in 0..n {
        got.push(mb.next().await.unwrap().unwrap());
    }
    assert!(got.windows(2).all(|w| w[0].sequence < w[1].sequence));
    // third joins, kill gateway mid conversation
    let c = w.client("weijian", "app-1").await;
    let cc = invite(&ca, &c).await;
    println!("members {:?}", cc.info().await.unwrap().members);
    ca.send("三方").await.unwrap();
    let mut mc = cc.receive();
    assert_eq!(mc.next().await.unwrap().unwrap().text(), Some("三方"));
    w.kill();
    let pend = {
        let ca = ca.clone();
        tokio::spawn(async move { ca.send("断线时").await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    w.start();
    let t = Instant::now();
    println!("after restart {:?}", pend.await.unwrap().unwrap());
    println!("recovered {:?}", t.elapsed());
    assert_eq!(mc.next().await.unwrap().unwrap().text(), Some("断线时"));
    // remove, leave
    let mut ev = c.events();
    let t = Instant::now();
    cb.leave().await.unwrap();
    println!("leave proposed {:?}", t.elapsed());
    loop {
        if let Event::MemberLeft { device, .. } = ev.next().await.unwrap().unwrap() {
            assert_eq!(&device, b.device());
            break;
        }
    }
    println!("leave committed {:?}", t.elapsed());
    assert!(matches!(cb.send("x").await, Err(ClientError::NotMember)), "left");
    ca.send("after leave").await.unwrap();
    assert_eq!(mc.next().await.unwrap().unwrap().text(), Some("after leave"));
    ca.remove(&[c.device().clone()]).await.unwrap();
    loop {
        if let Event::Removed { .. } = ev.next().await.unwrap().unwrap() {
            break;
        }
    }
    ca.send("alone").await.unwrap();
    println!("history a {}", ca.history(Sequence(0), 10000).await.unwrap().len());
    drop(mc);
    drop(ev);
    c.close().await.unwrap();
    a.close().await.unwrap();
    b.close().await.unwrap();
}
fn ca_clone(c: &Channel) -> Channel {
    c.clone()
}
#[tokio::test(flavor = "multi_thread")]
async fn repeat() {
    logs();
    let w = World::new();
    let a = w.client("jiwei", "app-1").await;
    let b = w.client("shenji", "app-1").await;
    for round in 0..60 {
        let ca = a.create(label(), &deps(&["jiwei", "shenji"])).await.unwrap();
        let mut invitations = b.invitations();
        for _ in 0..50 {
            match ca.invite(&[b.device().clone()]).await {
                Ok(_) => break,
                Err(ClientError::Refused(p)) if p.code == ReasonCode::NoKeyPackage => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(e) => panic!("{e:?}"),
            }
        }
        let i = tokio::time::timeout(Duration::from_secs(5), invitations.next()).await.expect("invitation").unwrap().unwrap();
        let cb = b.accept(i).await.unwrap();
        ca.send("你好").await.unwrap();
        let mut mb = cb.receive();
        match tokio::time::timeout(Duration::from_secs(3), mb.next()).await { Ok(m) => { m.unwrap().unwrap(); }, Err(_) => {
            println!("round {round} b info {:?}", cb.info().await.unwrap().head);
            let mut e = b.events(); while let Ok(x) = tokio::time::timeout(Duration::from_secs(1), e.next()).await { println!("{x:?}"); }
            panic!() } }
        let mut ma = ca.receive();
        cb.send("收到").await.unwrap();
        match tokio::time::timeout(Duration::from_secs(3), ma.next()).await { Ok(m) => { m.unwrap().unwrap(); }, Err(_) => {
            println!("round {round} a info {:?} b info {:?}", ca.info().await.unwrap().head, cb.info().await.unwrap().head);
            panic!() } }
    }
}
