// VFIO: a PCI device in the hands of a process (Linux Documentation/driver-api/vfio.rst, include/uapi/linux/vfio.h). 0 or a value, or a negated errno.
#ifndef CSYSTEM_VFIO_H
#define CSYSTEM_VFIO_H

#include <errno.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

static inline long dashfs_vfio_result(int result) { return result < 0 ? -(long)errno : result; }

static inline long dashfs_vfio_version(int container) { return dashfs_vfio_result(ioctl(container, VFIO_GET_API_VERSION)); }

/// Whether every device of the group is in VFIO's hands or nobody's: 1 or 0.
static inline long dashfs_vfio_group_is_viable(int group) {
    struct vfio_group_status status = {.argsz = sizeof status};
    if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0) return -(long)errno;
    return (status.flags & VFIO_GROUP_FLAGS_VIABLE) != 0;
}

static inline long dashfs_vfio_join(int group, int container) { return dashfs_vfio_result(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)); }

/// No translation: the device reaches all memory.
static inline long dashfs_vfio_use_no_iommu(int container) { return dashfs_vfio_result(ioctl(container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU)); }

/// Translation of the second kind of type 1, or of the first.
static inline long dashfs_vfio_use_iommu(int container) {
    if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0) return 0;
    return dashfs_vfio_result(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU));
}

/// The device's descriptor.
static inline long dashfs_vfio_device(int group, const char *_Nonnull address) { return dashfs_vfio_result(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address)); }

/// Where a region lies in the device's descriptor, and its bytes; 1 where it can be mapped, else 0. Region 0: BAR 0; 7: configuration space.
static inline long dashfs_vfio_region(int device, uint32_t index, uint64_t *_Nonnull offset, uint64_t *_Nonnull bytes) {
    struct vfio_region_info region = {.argsz = sizeof region, .index = index};
    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) < 0) return -(long)errno;
    *offset = region.offset;
    *bytes = region.size;
    return (region.flags & VFIO_REGION_INFO_FLAG_MMAP) != 0;
}

/// Lets the device reach `bytes` at `memory`, whole pages, under the address `device_address`.
static inline long dashfs_vfio_map(int container, const void *_Nonnull memory, uint64_t device_address, uint64_t bytes) {
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, .vaddr = (uintptr_t)memory, .iova = device_address, .size = bytes};
    return dashfs_vfio_result(ioctl(container, VFIO_IOMMU_MAP_DMA, &map));
}

static inline long dashfs_vfio_unmap(int container, uint64_t device_address, uint64_t bytes) {
    struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = device_address, .size = bytes};
    return dashfs_vfio_result(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap));
}

static inline long dashfs_vfio_reset(int device) { return dashfs_vfio_result(ioctl(device, VFIO_DEVICE_RESET)); }

/// How many MSI-X vectors there are.
static inline long dashfs_vfio_interrupts(int device) {
    struct vfio_irq_info info = {.argsz = sizeof info, .index = VFIO_PCI_MSIX_IRQ_INDEX};
    if (ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info) < 0) return -(long)errno;
    return info.count;
}

/// MSI-X vector 0 signals `eventfd`, or nobody (-1: it is masked, and stays pending).
static inline long dashfs_vfio_set_interrupt(int device, int eventfd) {
    union {
        struct vfio_irq_set set;
        char bytes[sizeof(struct vfio_irq_set) + sizeof(int)];
    } argument;
    memset(&argument, 0, sizeof argument);
    argument.set.argsz = sizeof argument;
    argument.set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    argument.set.index = VFIO_PCI_MSIX_IRQ_INDEX;
    argument.set.count = 1;
    memcpy(argument.bytes + sizeof(struct vfio_irq_set), &eventfd, sizeof eventfd);
    return dashfs_vfio_result(ioctl(device, VFIO_DEVICE_SET_IRQS, &argument.set));
}

/// Registers of a device: one access each, in the order of the program, after every store to memory before it.
static inline uint32_t dashfs_register_load32(const volatile void *_Nonnull address) {
    uint32_t value = *(const volatile uint32_t *)address;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return value;
}
static inline void dashfs_register_store32(volatile void *_Nonnull address, uint32_t value) {
    __atomic_thread_fence(__ATOMIC_RELEASE);
    *(volatile uint32_t *)address = value;
}

#endif
