/*
 * The Xe DRM interface and the GPU commands that the clients use: numbers and layouts only, written down anew.
 * Every struct is checked for its size where it is defined.
 */
#ifndef CLIENTS_XE_H
#define CLIENTS_XE_H

#include <stdint.h>

#define SIZE_IS(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)

/* ioctl numbers: direction, size of the argument, 'd', number */
#define IOC_VERSION 0xc0406400u
#define IOC_DEVICE_QUERY 0xc0286440u
#define IOC_GEM_CREATE 0xc0386441u
#define IOC_GEM_MMAP_OFFSET 0xc0286442u
#define IOC_GEM_CLOSE 0x40086409u
#define IOC_VM_CREATE 0xc0206443u
#define IOC_VM_DESTROY 0x40186444u
#define IOC_VM_BIND 0x40886445u
#define IOC_EXEC_QUEUE_CREATE 0xc0306446u
#define IOC_EXEC_QUEUE_DESTROY 0x40186447u
#define IOC_EXEC_QUEUE_GET_PROPERTY 0xc0286448u
#define IOC_EXEC 0x40386449u
#define IOC_WAIT_USER_FENCE 0xc048644au
#define IOC_MADVISE 0x4040644cu

struct version { int32_t major, minor, patch; uint64_t name_len; char *name; uint64_t date_len; char *date; uint64_t desc_len; char *desc; };
SIZE_IS(version, 64);

enum { QUERY_ENGINES = 0, QUERY_MEM_REGIONS = 1, QUERY_CONFIG = 2, QUERY_GT_LIST = 3 };
struct device_query { uint64_t extensions; uint32_t query, size; uint64_t data, reserved[2]; };
SIZE_IS(device_query, 40);

/* answers begin with a count and a pad */
struct query_head { uint32_t count, pad; };

enum { CONFIG_DEVICE = 0, CONFIG_FLAGS = 1, CONFIG_MIN_ALIGNMENT = 2, CONFIG_VA_BITS = 3, CONFIG_MAX_PRIORITY = 4 };
enum { CONFIG_HAS_VRAM = 1, CONFIG_HAS_MIRROR = 4 };

enum { REGION_SYSTEM = 0, REGION_VRAM = 1 };
struct mem_region { uint16_t class, instance; uint32_t min_page_size; uint64_t total, used, visible, visible_used, reserved[6]; };
SIZE_IS(mem_region, 88);

enum { CLASS_COPY = 1, CLASS_COMPUTE = 4 };
struct engine_instance { uint16_t class, instance, gt_id, pad; };
SIZE_IS(engine_instance, 8);
struct engine { struct engine_instance instance; uint64_t reserved[3]; };
SIZE_IS(engine, 32);

struct gt {
    uint16_t type, tile_id, gt_id, pad[3];
    uint32_t reference_clock;
    uint64_t near_regions, far_regions;
    uint16_t ip_major, ip_minor, ip_revision, pad2;
    uint64_t reserved[7];
};
SIZE_IS(gt, 96);

enum { VM_LONG_RUNNING = 2, VM_FAULTING = 4 };
struct vm_create { uint64_t extensions; uint32_t flags, vm_id; uint64_t reserved[2]; };
SIZE_IS(vm_create, 32);
struct vm_destroy { uint32_t vm_id, pad; uint64_t reserved[2]; };
SIZE_IS(vm_destroy, 24);

enum { PLACE_SYSTEM = 1, PLACE_VRAM0 = 2, PLACE_VRAM1 = 4 };
enum { CACHING_WB = 1, CACHING_WC = 2 };
struct gem_create {
    uint64_t extensions, size;
    uint32_t placement, flags, vm_id, handle;
    uint16_t cpu_caching, pad[3];
    uint64_t reserved[2];
};
SIZE_IS(gem_create, 56);
struct gem_mmap_offset { uint64_t extensions; uint32_t handle, flags; uint64_t offset, reserved[2]; };
SIZE_IS(gem_mmap_offset, 40);
struct gem_close { uint32_t handle, pad; };
SIZE_IS(gem_close, 8);

enum { SYNC_USER_FENCE = 2, SYNC_SIGNAL = 1 };
struct sync { uint64_t extensions; uint32_t type, flags; uint64_t addr, value, reserved[2]; };
SIZE_IS(sync, 48);

/* what memory of the CPU can be mapped with: cached on PVC, not on Battlemage, coherent on both */
#define PAT_COHERENT 5

enum { BIND_MAP = 0, BIND_UNMAP = 1, BIND_MAP_USERPTR = 2, BIND_UNMAP_ALL = 3, BIND_PREFETCH = 4 };
enum { BIND_READONLY = 1 << 0, BIND_IMMEDIATE = 1 << 1, BIND_CPU_ADDR_MIRROR = 1 << 5 };
struct bind_op {
    uint64_t extensions;
    uint32_t obj;
    uint16_t pat_index, pad;
    uint64_t obj_offset, range, addr;
    uint32_t op, flags, prefetch_region, pad2;
    uint64_t reserved[3];
};
SIZE_IS(bind_op, 80);
struct vm_bind {
    uint64_t extensions;
    uint32_t vm_id, exec_queue_id, pad, num_binds;
    struct bind_op bind;
    uint32_t pad2, num_syncs;
    uint64_t syncs, reserved[2];
};
SIZE_IS(vm_bind, 136);

struct queue_create {
    uint64_t extensions;
    uint16_t width, num_placements;
    uint32_t vm_id, flags, exec_queue_id;
    uint64_t instances, reserved[2];
};
SIZE_IS(queue_create, 48);
struct queue_destroy { uint32_t exec_queue_id, pad; uint64_t reserved[2]; };
SIZE_IS(queue_destroy, 24);
struct queue_property { uint64_t extensions; uint32_t exec_queue_id, property; uint64_t value, reserved[2]; };
SIZE_IS(queue_property, 40);

struct exec {
    uint64_t extensions;
    uint32_t exec_queue_id, num_syncs;
    uint64_t syncs, address;
    uint16_t num_batch_buffer, pad[3];
    uint64_t reserved[2];
};
SIZE_IS(exec, 56);

enum { WAIT_EQUAL = 0 };
struct wait_user_fence {
    uint64_t extensions, addr;
    uint16_t op, flags;
    uint32_t pad;
    uint64_t value, mask;
    int64_t timeout;
    uint32_t exec_queue_id, pad2;
    uint64_t reserved[2];
};
SIZE_IS(wait_user_fence, 72);

enum { PREFERRED_LOC = 0, ATOMIC = 1, PAT = 2, PURGEABLE = 3 };
struct madvise { uint64_t extensions, start, range; uint32_t vm_id, attr, value; uint16_t policy, region; uint64_t pointer, reserved[2]; };
SIZE_IS(madvise, 64);

/* GPU commands: the first dword */
#define MI_BATCH_BUFFER_END 0x05000000u
#define MI_STORE_DWORD 0x10000002u    /* address low, high, 32 bits */
#define MI_STORE_QWORD 0x10200003u    /* address low, high, 64 bits */
#define MI_ATOMIC_INC 0x17800501u     /* address low, high; 32 bits */
#define MI_ATOMIC_ADD 0x17840709u     /* address low, high, then 8 dwords: the operand first; 32 bits */

#endif
