// A plugin of QEMU's (TCG plugins, version 1 of their interface) that counts the instructions which an emulated processor executes between the marks
// of csystem_count.h, in user and in kernel mode. For a machine with one processor.
//
//     qemu-system-x86_64 -plugin ./counter.so,out=FILE[,hot=on] ...
//
// Each report is a line in FILE, "counted USER KERNEL"; with hot=on lines follow, "block ADDRESS INSTRUCTIONS", for every block of code that ran.
// A repeated string operation counts as one instruction, however long: the emulator runs each step of it as a block of its own.
// Where an instruction faults in the middle of a block, the block's end has been counted, and is counted again when it goes on there.
#include "csystem_count.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Of the interface, what is used here (QEMU's documentation, "QEMU TCG Plugins").
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*translated)(uint64_t id, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *block, void (*executed)(unsigned processor, void *data), enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(
    struct qemu_plugin_insn *instruction, void (*executed)(unsigned processor, void *data), enum qemu_plugin_cb_flags flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *instruction);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

struct block {
    uint64_t address, executions;
    uint64_t repeats; // the address of a repeated string operation at its end, or 0
    unsigned instructions;
    struct block *next;
};

static FILE *out;
static bool counting, hot;
static uint64_t counted[2]; // user, kernel
static uint64_t repeating;  // what the block before repeats
static struct block *blocks;

static void executed(unsigned processor, void *data) {
    (void)processor;
    struct block *block = data;
    bool again = block->address == repeating;
    repeating = block->repeats;
    if (!counting || again) return;
    counted[block->address >> 63] += block->instructions;
    block->executions++;
}

static void marked(unsigned processor, void *data) {
    (void)processor;
    uint32_t mark = (uint32_t)(uintptr_t)data;
    counting = mark == DASHFS_COUNT_ON;
    if (mark != DASHFS_COUNT_REPORT) return;
    fprintf(out, "counted %llu %llu\n", (unsigned long long)counted[0], (unsigned long long)counted[1]);
    counted[0] = counted[1] = 0;
    for (struct block *block = blocks; block; block = block->next) {
        if (hot && block->executions)
            fprintf(out, "block %016llx %llu\n", (unsigned long long)block->address, (unsigned long long)(block->executions * block->instructions));
        block->executions = 0;
    }
    fflush(out);
}

static bool is_repeated(const uint8_t *code) {
    bool prefixed = false;
    for (; *code == 0xf2 || *code == 0xf3 || *code == 0x66 || *code == 0x67 || (*code & 0xf0) == 0x40; code++) prefixed |= (*code & 0xfe) == 0xf2;
    return prefixed && ((*code >= 0xa4 && *code <= 0xa7) || (*code >= 0xaa && *code <= 0xaf));
}

static void translated(uint64_t id, struct qemu_plugin_tb *translation) {
    (void)id;
    struct block *block = calloc(1, sizeof *block);
    if (!block) abort();
    size_t count = qemu_plugin_tb_n_insns(translation);
    block->instructions = (unsigned)count;
    for (size_t index = 0; index < count; index++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(translation, index);
        const uint8_t *code = qemu_plugin_insn_data(instruction);
        uint32_t displacement;
        if (index == 0) block->address = qemu_plugin_insn_vaddr(instruction);
        if (index == count - 1 && is_repeated(code)) block->repeats = qemu_plugin_insn_vaddr(instruction);
        if (qemu_plugin_insn_size(instruction) != 7 || memcmp(code, "\x0f\x1f\x80", 3)) continue;
        memcpy(&displacement, code + 3, 4);
        if (displacement - DASHFS_COUNT_OFF > DASHFS_COUNT_REPORT - DASHFS_COUNT_OFF) continue;
        block->instructions = 0; // the mark and the jump behind it
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, QEMU_PLUGIN_CB_NO_REGS, (void *)(uintptr_t)displacement);
    }
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(translation, executed, QEMU_PLUGIN_CB_NO_REGS, block);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *machine, int argc, char **argv) {
    (void)machine;
    for (int index = 0; index < argc; index++) {
        if (!strncmp(argv[index], "out=", 4)) out = fopen(argv[index] + 4, "w");
        if (!strcmp(argv[index], "hot=on")) hot = true;
    }
    if (!out) return fprintf(stderr, "counter: out=FILE is missing, or cannot be written\n"), 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
