//! A DRM file: one open of the device node, with its own names for VMs, queues and BOs.
//!
//! Locking: the file's lock is a leaf, held for a look-up and nothing else. A bind takes it with its VM's lock held, to
//! look for BOs; no lock of a VM is taken under it.
//!
//! Upstream: `struct xe_file`, `xe_file_open`, `xe_file_close`.

use std::sync::Arc;

use sync::Mutex;
use sync::atomic::AtomicBool;
use sync::rank::mutex;
use xe_spec::fault::Asid;
use xe_spec::platform::Platform;

use crate::bo::Bo;
use crate::caller::Location;
use crate::client::{Client, Usage};
use crate::errno::Errno;
use crate::exec_queue::{ExecQueue, Queues};
use crate::gem::Gem;
use crate::ids::IdTable;
use crate::ranks;
use crate::share::SharedBos;
use crate::shared::Shared;
use crate::svm::policy;
use crate::syncobj::Syncobj;
use crate::vm::{Vm, Vms};

/// One open file.
pub struct File {
    pub(crate) shared: Arc<Shared>,
    pub(crate) vms: Arc<Vms>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) bos: Arc<SharedBos>,
    /// It is the device's master, or was: it may be that again.
    pub(crate) was_master: AtomicBool,
    pub(crate) names: Mutex<Names>,
    pub(crate) client: Client,
}

/// What a file's names mean.
#[derive(Default)]
pub(crate) struct Names {
    pub vms: IdTable<Arc<Vm>>,
    pub queues: IdTable<Arc<ExecQueue>>,
    pub gem: Gem,
    pub syncobjs: IdTable<Arc<Syncobj>>,
    closed: bool,
}

impl File {
    pub(crate) fn new(
        shared: Arc<Shared>,
        vms: Arc<Vms>,
        queues: Arc<Queues>,
        bos: Arc<SharedBos>,
        is_render: bool,
    ) -> Self {
        let id = shared.gpu.budget.next_client();
        let is_master = !is_render && shared.master.take(id);
        let client = Client::new(shared.open_files.add(id, is_render, is_master || shared.is_admin()));
        let was_master = AtomicBool::new(is_master);
        Self { shared, vms, queues, bos, was_master, names: mutex(ranks::LEAF, Names::default()), client }
    }

    /// Closes the file: queues end first, then VMs. Idempotent; dropping the file does the same.
    pub fn close(&self) {
        self.shared.master.give(self.client.who.id);
        self.shared.open_files.remove(self.client.who.id);
        // BOs may end when they are dropped, which is not for under the lock.
        let (queues, vms, _bos, _syncobjs) = {
            let mut names = self.names.lock();
            names.closed = true;
            let (queues, vms) = (names.queues.take_all(), names.vms.take_all());
            (queues, vms, names.gem.take_all(), names.syncobjs.take_all())
        };
        queues.iter().for_each(|queue| queue.close());
        vms.iter().for_each(|vm| vm.close());
    }

    /// Names a VM, unless the file is being closed.
    pub(crate) fn add_vm(&self, vm: &Arc<Vm>) -> Result<u32, Errno> {
        let mut names = self.names.lock();
        let open = !names.closed;
        open.then(|| names.vms.insert(vm.clone())).flatten().ok_or(Errno::ENOSPC)
    }

    /// Names a queue, unless the file is being closed.
    pub(crate) fn add_queue(&self, queue: &Arc<ExecQueue>) -> Result<u32, Errno> {
        let mut names = self.names.lock();
        let open = !names.closed;
        open.then(|| names.queues.insert(queue.clone())).flatten().ok_or(Errno::ENOSPC)
    }

    /// Names a BO, unless the file is being closed.
    pub(crate) fn add_bo(&self, bo: &Arc<Bo>) -> Result<u32, Errno> {
        let mut names = self.names.lock();
        if names.closed {
            return Err(Errno::ENOSPC);
        }
        names.gem.add(bo.clone())
    }

    /// Names a BO that came from elsewhere, unless the file is being closed.
    pub(crate) fn import_bo(&self, bo: &Arc<Bo>) -> Result<u32, Errno> {
        let mut names = self.names.lock();
        if names.closed {
            return Err(Errno::ENOSPC);
        }
        names.gem.import(bo)
    }

    /// The BO of that name.
    pub(crate) fn bo(&self, handle: u32) -> Option<Arc<Bo>> {
        self.names.lock().gem.get(handle).map(|handle| handle.bo)
    }

    /// Names a syncobj, unless the file is being closed.
    pub(crate) fn add_syncobj(&self, syncobj: &Arc<Syncobj>) -> Result<u32, Errno> {
        let mut names = self.names.lock();
        let open = !names.closed;
        open.then(|| names.syncobjs.insert(syncobj.clone())).flatten().ok_or(Errno::ENOSPC)
    }

    /// The syncobj of that name.
    pub(crate) fn syncobj(&self, handle: u32) -> Option<Arc<Syncobj>> {
        self.names.lock().syncobjs.get(handle)
    }

    /// The facts of its device.
    pub fn platform(&self) -> &'static Platform {
        self.shared.platform()
    }

    /// A region of the device's VRAM, for advice that names this file.
    pub fn location(&self, region: u16) -> Location {
        policy::location(&self.shared.gpu, region)
    }

    /// The address space of a VM: what a fault of it names.
    pub fn asid(&self, vm_id: u32) -> Option<Asid> {
        Some(self.vm(vm_id)?.asid)
    }

    /// Whether it is of the render node, by which nobody reaches what others name by numbers.
    pub(crate) fn is_render(&self) -> bool {
        self.client.who.is_render
    }

    /// What it uses at the moment.
    pub fn usage(&self) -> Usage {
        let (queues, bos) = {
            let names = self.names.lock();
            (names.queues.values().cloned().collect::<Vec<_>>(), names.gem.bos())
        };
        self.client.usage(self.shared.platform(), &queues, &bos)
    }

    /// The VM of that name.
    pub(crate) fn vm(&self, id: u32) -> Option<Arc<Vm>> {
        self.names.lock().vms.get(id)
    }

    /// The queue of that name.
    pub(crate) fn queue(&self, id: u32) -> Option<Arc<ExecQueue>> {
        self.names.lock().queues.get(id)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.close();
    }
}
