// vfio_probe ADDRESS GROUP [fault]: what a user-level NVMe driver finds through VFIO, one fact a line. ADDRESS as 0000:00:04.0, GROUP as
// /dev/vfio/1.
//
// It does what a driver's start does and nothing more: container, group and IOMMU; BAR 0 mapped, its registers read; a reset; an admin
// queue in memory mapped for DMA, with an MSI-X vector that rings an eventfd; Identify and Get Features; a reset at the end. It writes
// nothing to the disk. With `fault` the device is also told to write to memory that is not mapped: the IOMMU refuses, the kernel says so.
// Exit 0 all was done, 1 a step failed (it is named).
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NEED(condition, what) \
    do { \
        if (!(condition)) { \
            printf("FAILED: %s: %s\n", what, strerror(errno)); \
            exit(1); \
        } \
    } while (0)

// Offsets of registers: NVMe Base Specification 2.0, §3.1.3.
enum { CAP = 0x00, VS = 0x08, CC = 0x14, CSTS = 0x1C, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, CMBLOC = 0x38, CMBSZ = 0x3C, DOORBELLS = 0x1000 };
enum { DEPTH = 16, IOVA = 0x100000 };  // of the admin queues; where our memory is for the device: two queues and three pages for data

static volatile uint8_t *bar;
static uint8_t *memory;  // page 0: submissions; 1: completions; 2 and on: data
static int bell;
static unsigned tail, head, phase = 1, stride;

static uint32_t get32(unsigned at) { return *(volatile uint32_t *)(bar + at); }
static void set32(unsigned at, uint32_t value) { *(volatile uint32_t *)(bar + at) = value; }
static uint64_t get64(unsigned at) { return get32(at) | (uint64_t)get32(at + 4) << 32; }
static void set64(unsigned at, uint64_t value) { set32(at, (uint32_t)value); set32(at + 4, (uint32_t)(value >> 32)); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void await_ready(unsigned wanted) {
    double began = now();
    while ((get32(CSTS) & 1) != wanted) {
        errno = ETIMEDOUT;
        NEED(!(get32(CSTS) & 2), "CSTS says that the controller has failed");
        NEED(now() - began < 30000, "waiting for CSTS.RDY");
        usleep(100);
    }
    printf("CSTS.RDY=%u after %.1f ms\n", wanted, now() - began);
}

// One command and its completion; the status field without the phase, 0 for success.
static unsigned admin(uint8_t opcode, uint32_t namespace, uint64_t prp1, uint32_t dword10, uint32_t *result) {
    uint32_t *command = (uint32_t *)memory + tail * 16;
    memset(command, 0, 64);
    command[0] = opcode | (tail + 1) << 16;
    command[1] = namespace;
    memcpy(command + 6, &prp1, 8);
    command[10] = dword10;
    tail = (tail + 1) % DEPTH;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    set32(DOORBELLS, tail);
    struct pollfd wait = {bell, POLLIN, 0};
    NEED(poll(&wait, 1, 10000) == 1, "no interrupt within 10 s");
    uint64_t rings;
    NEED(read(bell, &rings, sizeof rings) == sizeof rings, "reading the eventfd");
    volatile uint32_t *completion = (volatile uint32_t *)(memory + 4096) + head * 4;
    errno = EPROTO;
    NEED((completion[3] >> 16 & 1) == phase, "an interrupt without a completion");
    unsigned status = completion[3] >> 17;
    if (result) *result = completion[0];
    if (++head == DEPTH) head = 0, phase ^= 1;
    set32(DOORBELLS + (4 << stride), head);
    return status;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3) return fprintf(stderr, "usage: vfio_probe ADDRESS GROUP [fault]\n"), 1;

    // Container, group, IOMMU: linux/Documentation/driver-api/vfio.rst.
    int container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC), group = open(argv[2], O_RDWR | O_CLOEXEC);
    NEED(container >= 0, "/dev/vfio/vfio");
    NEED(group >= 0, argv[2]);
    printf("VFIO API version %d, type1v2 %s\n", ioctl(container, VFIO_GET_API_VERSION), ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1 ? "yes" : "no");
    struct vfio_group_status viable = {.argsz = sizeof viable};
    NEED(ioctl(group, VFIO_GROUP_GET_STATUS, &viable) == 0 && viable.flags & VFIO_GROUP_FLAGS_VIABLE, "the group is not viable");
    NEED(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0, "VFIO_GROUP_SET_CONTAINER");
    NEED(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0, "VFIO_SET_IOMMU");

    union { struct vfio_iommu_type1_info info; uint8_t bytes[4096]; } iommu = {.info.argsz = sizeof iommu};
    NEED(ioctl(container, VFIO_IOMMU_GET_INFO, &iommu) == 0, "VFIO_IOMMU_GET_INFO");
    printf("IOMMU page sizes 0x%llx\n", (unsigned long long)iommu.info.iova_pgsizes);
    for (unsigned at = iommu.info.flags & VFIO_IOMMU_INFO_CAPS ? iommu.info.cap_offset : 0; at;) {
        struct vfio_info_cap_header *header = (void *)(iommu.bytes + at);
        if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
            struct vfio_iommu_type1_info_cap_iova_range *ranges = (void *)header;
            for (unsigned i = 0; i < ranges->nr_iovas; i++)
                printf("IOVA range 0x%llx to 0x%llx\n", (unsigned long long)ranges->iova_ranges[i].start, (unsigned long long)ranges->iova_ranges[i].end);
        } else if (header->id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
            printf("DMA mappings available %u\n", ((struct vfio_iommu_type1_info_dma_avail *)header)->avail);
        at = header->next;
    }

    int device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[1]);
    NEED(device >= 0, "VFIO_GROUP_GET_DEVICE_FD");
    struct vfio_device_info about = {.argsz = sizeof about};
    NEED(ioctl(device, VFIO_DEVICE_GET_INFO, &about) == 0, "VFIO_DEVICE_GET_INFO");
    printf("device: reset %s, %u regions, %u kinds of interrupt\n", about.flags & VFIO_DEVICE_FLAGS_RESET ? "yes" : "no", about.num_regions, about.num_irqs);
    for (unsigned i = 0; i < about.num_irqs; i++) {
        struct vfio_irq_info irq = {.argsz = sizeof irq, .index = i};
        if (ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq) == 0 && irq.count)
            printf("interrupt kind %u%s: %u vectors, flags 0x%x%s\n", i, i == VFIO_PCI_MSIX_IRQ_INDEX ? " (MSI-X)" : "",
                irq.count, irq.flags, irq.flags & VFIO_IRQ_INFO_NORESIZE ? ", all to be enabled at once" : "");
    }
    union { struct vfio_region_info info; uint8_t bytes[4096]; } region = {.info = {.argsz = sizeof region, .index = VFIO_PCI_BAR0_REGION_INDEX}};
    NEED(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) == 0, "VFIO_DEVICE_GET_REGION_INFO of BAR 0");
    printf("BAR 0: %llu bytes, mappable %s", (unsigned long long)region.info.size, region.info.flags & VFIO_REGION_INFO_FLAG_MMAP ? "yes" : "no");
    for (unsigned at = region.info.flags & VFIO_REGION_INFO_FLAG_CAPS ? region.info.cap_offset : 0; at;) {
        struct vfio_info_cap_header *header = (void *)(region.bytes + at);
        printf(", capability %u%s", header->id, header->id == VFIO_REGION_INFO_CAP_MSIX_MAPPABLE ? " (the MSI-X table as well)" : "");
        at = header->next;
    }
    printf("\n");
    size_t size = region.info.size;
    bar = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)region.info.offset);
    NEED(bar != MAP_FAILED, "mmap of BAR 0");

    struct vfio_region_info config = {.argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX};
    NEED(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) == 0, "VFIO_DEVICE_GET_REGION_INFO of the configuration space");
    uint16_t order;
    NEED(pread(device, &order, 2, (off_t)config.offset + PCI_COMMAND) == 2, "reading the command register");
    printf("PCI command register 0x%04x\n", order);

    uint64_t cap = get64(CAP);
    uint32_t vs = get32(VS);
    stride = cap >> 32 & 15;
    printf("CAP 0x%016llx: MQES=%u CQR=%u AMS=%u TO=%u (x 500 ms) DSTRD=%u NSSRS=%u CSS=0x%02x BPS=%u MPSMIN=%u MPSMAX=%u PMRS=%u CMBS=%u\n",
        (unsigned long long)cap,
        (unsigned)(cap & 0xFFFF), (unsigned)(cap >> 16 & 1), (unsigned)(cap >> 17 & 3), (unsigned)(cap >> 24 & 255), stride,
        (unsigned)(cap >> 36 & 1), (unsigned)(cap >> 37 & 255),
        (unsigned)(cap >> 45 & 1), (unsigned)(cap >> 48 & 15), (unsigned)(cap >> 52 & 15), (unsigned)(cap >> 56 & 1), (unsigned)(cap >> 57 & 1));
    printf("VS 0x%08x: %u.%u.%u\n", vs, vs >> 16, vs >> 8 & 255, vs & 255);
    printf("CC 0x%08x CSTS 0x%08x CMBLOC 0x%08x CMBSZ 0x%08x, as found\n", get32(CC), get32(CSTS), get32(CMBLOC), get32(CMBSZ));

    double began = now();
    NEED(ioctl(device, VFIO_DEVICE_RESET) == 0, "VFIO_DEVICE_RESET");
    printf("reset in %.1f ms; CC 0x%08x CSTS 0x%08x after it\n", now() - began, get32(CC), get32(CSTS));
    NEED(pread(device, &order, 2, (off_t)config.offset + PCI_COMMAND) == 2, "reading the command register");
    printf("PCI command register 0x%04x after it\n", order);
    order |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;  // without the latter the device can neither read commands nor interrupt
    NEED(pwrite(device, &order, 2, (off_t)config.offset + PCI_COMMAND) == 2, "writing the command register");

    // Memory that the device sees, and an interrupt.
    struct rlimit limit;
    getrlimit(RLIMIT_MEMLOCK, &limit);
    printf("RLIMIT_MEMLOCK %llu (does not bind with CAP_IPC_LOCK)\n", (unsigned long long)limit.rlim_cur);
    void *huge = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    printf("a huge page of 2 MiB: %s\n", huge == MAP_FAILED ? strerror(errno) : "yes");
    memory = mmap(NULL, 5 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(memory != MAP_FAILED, "mmap");
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, .vaddr = (uintptr_t)memory, .iova = IOVA, .size = 5 * 4096};
    NEED(ioctl(container, VFIO_IOMMU_MAP_DMA, &map) == 0, "VFIO_IOMMU_MAP_DMA");
    size_t much = 128 << 20;
    void *large = mmap(NULL, much, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct vfio_iommu_type1_dma_map second = {
        .argsz = sizeof second, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, .vaddr = (uintptr_t)large, .iova = 1 << 30, .size = much};
    began = now();
    int mapped = ioctl(container, VFIO_IOMMU_MAP_DMA, &second);
    printf("mapping 128 MiB for DMA: %s, %.0f ms\n", mapped ? strerror(errno) : "yes", now() - began);
    if (!mapped) {
        struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = 1 << 30, .size = much};
        NEED(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0, "VFIO_IOMMU_UNMAP_DMA");
    }
    munmap(large, much);
    bell = eventfd(0, EFD_CLOEXEC);
    union { struct vfio_irq_set set; uint8_t bytes[sizeof(struct vfio_irq_set) + 4]; } vector = {
        .set = {.argsz = sizeof vector, .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, .index = VFIO_PCI_MSIX_IRQ_INDEX, .start = 0, .count = 1}};
    memcpy(vector.set.data, &bell, 4);
    NEED(ioctl(device, VFIO_DEVICE_SET_IRQS, &vector) == 0, "VFIO_DEVICE_SET_IRQS");

    // The admin queue. CC: entries of 64 and 16 bytes, pages of 4 KiB, the NVM command set.
    NEED((cap >> 48 & 15) == 0, "the controller has no pages of 4 KiB");
    set32(CC, 0);
    await_ready(0);
    set32(AQA, (DEPTH - 1) << 16 | (DEPTH - 1));
    set64(ASQ, IOVA);
    set64(ACQ, IOVA + 4096);
    set32(CC, 4 << 20 | 6 << 16 | 1);
    await_ready(1);

    uint8_t *data = memory + 2 * 4096;
    uint32_t result;
    unsigned status = admin(0x06, 0, IOVA + 2 * 4096, 1, NULL);  // Identify Controller
    errno = EIO;
    NEED(status == 0, "Identify Controller");
    uint16_t oacs, oncs;
    uint32_t namespaces;
    memcpy(&oacs, data + 256, 2);
    memcpy(&oncs, data + 520, 2);
    memcpy(&namespaces, data + 516, 4);
    printf("controller: serial %.20s model %.40s firmware %.8s\n", data + 4, data + 24, data + 64);
    printf("MDTS=%u OACS=0x%04x (Doorbell Buffer Config %s) ONCS=0x%04x (Write Zeroes %s, Dataset Management %s, Compare %s) "
        "VWC=0x%02x NN=%u SQES=0x%02x CQES=0x%02x SGLS=0x%08x AWUN=%u AWUPF=%u\n",
        data[77], oacs, oacs >> 8 & 1 ? "yes" : "no", oncs, oncs >> 3 & 1 ? "yes" : "no", oncs >> 2 & 1 ? "yes" : "no", oncs & 1 ? "yes" : "no",
        data[525], namespaces, data[512], data[513],
        *(uint32_t *)(data + 536), *(uint16_t *)(data + 526), *(uint16_t *)(data + 528));
    NEED(admin(0x06, 1, IOVA + 2 * 4096, 0, NULL) == 0, "Identify Namespace");
    uint64_t blocks;
    memcpy(&blocks, data, 8);
    unsigned format = data[26] & 15;
    printf("namespace 1: %llu blocks of %u bytes (format %u of %u), NSFEAT=0x%02x DLFEAT=0x%02x NAWUPF=%u\n",
        (unsigned long long)blocks, 1u << data[128 + 4 * format + 2], format,
        data[25] + 1, data[24], data[33], *(uint16_t *)(data + 36));
    status = admin(0x0A, 0, 0, 0x06, &result);
    printf("Get Features 06h (volatile write cache): status 0x%03x, 0x%08x\n", status, result);
    status = admin(0x0A, 0, 0, 0x07, &result);
    printf("Get Features 07h (queues): status 0x%03x, 0x%08x\n", status, result);
    if (argc > 3) printf("Identify into memory that is not mapped: status 0x%03x\n", admin(0x06, 0, 0x40000000, 1, NULL));

    int count = 200;
    began = now();
    for (int i = 0; i < count; i++) admin(0x0A, 0, 0, 0x06, &result);
    printf("an admin command with its interrupt: %.3f ms\n", (now() - began) / count);
    NEED(ioctl(device, VFIO_DEVICE_RESET) == 0, "VFIO_DEVICE_RESET");
    printf("reset: CC 0x%08x CSTS 0x%08x\n", get32(CC), get32(CSTS));
    return 0;
}
