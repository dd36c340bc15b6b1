// Randomness, paths and the line being written. Few names and few directories, so that operations meet each other's results.
#include "oracle.h"
#include <stdarg.h>

char root[PATH_ROOM];
size_t root_length;
uint64_t features = ~0ull;
int actor;
int64_t operation;
time_t started;
int slot[SLOTS] = {-1, -1, -1, -1, -1, -1, -1, -1};
int lowest_descriptor;
char line[32768];
size_t line_used;

static uint64_t state;

static uint64_t mix(uint64_t x) {  // splitmix64
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

void seed_operation(uint64_t seed, int64_t number) {
    state = mix(mix(seed) ^ (uint64_t)number);
    operation = number;
}

uint64_t rnd(uint64_t below) {
    state = mix(state);
    return state % below;
}

bool chance(unsigned percent) { return rnd(100) < percent; }
bool has(uint64_t feature) { return (features & feature) == feature; }

bool planted(const char *name) {
    static const char *plant = "";
    static bool asked;
    if (!asked) {
        const char *value = getenv("ORACLE_PLANT");
        if (value) plant = value;
        asked = true;
    }
    return strcmp(plant, name) == 0;
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line + line_used, sizeof line - line_used, format, arguments);
    va_end(arguments);
    if (n > 0) line_used += (size_t)n < sizeof line - line_used ? (size_t)n : sizeof line - line_used - 1;
}

void say_result(long result) {
    if (result != -1) say(" = %ld", result);
    else say(" = -1 %s", strerrorname_np(errno) ? strerrorname_np(errno) : "E?");
}

static const char *const directory_names[] = {"p", "q", "r"};
static const char *const file_names[] = {"a", "b", "c", "d", "e"};
static const char *const link_names[] = {"s", "t"};

static const char *component(unsigned directory, unsigned file) {
    uint64_t r = rnd(100);
    if (r < directory) return directory_names[rnd(3)];
    if (r < directory + file) return file_names[rnd(5)];
    return link_names[rnd(2)];
}

// Runs of more than 40 equal characters are printed as <count x char>, the root as "@".
const char *shown_text(const char *text, char *room, size_t size) {
    size_t used = 0;
    if (strncmp(text, root, root_length) == 0 && root_length > 0) {
        used += (size_t)snprintf(room, size, "@");
        text += root_length;
    }
    while (*text && used + 24 < size) {
        size_t unit = text[0] == '.' && text[1] == '/' ? 2 : 1, run = 1;
        while (strncmp(text + run * unit, text, unit) == 0) run++;
        if (run > 20) {
            used += unit == 2 && text[run * unit] ? (size_t)snprintf(room + used, size - used, "<./ ...>")
                                                  : (size_t)snprintf(room + used, size - used, "<%zu x %.*s>", run, (int)unit, text);
            text += run * unit;
        } else {
            room[used++] = *text++;
        }
    }
    room[used] = 0;
    return room;
}

static bool real_directory(int dirfd, const char *path) {
    struct stat st;
    return fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

// Rewrites the path in an unusual but legal (or too long) form.
static void decorate(struct where *w, size_t base) {
    char old[PATH_ROOM];
    size_t length = strlen(w->path);
    w->plain = false;
    switch (rnd(10)) {
    case 0: strcat(w->path, "/"); break;
    case 1: strcat(w->path, "//"); break;
    case 2: if (real_directory(w->dirfd, w->path)) strcat(w->path, "/."); else w->plain = true; break;
    case 3:
        if (real_directory(w->dirfd, w->path)) {
            strcat(w->path, "/../");
            strcat(w->path, component(40, 50));
        } else w->plain = true;
        break;
    case 4:  // ./ in front, or doubled slashes
        strcpy(old, w->path + base);
        sprintf(w->path + base, chance(50) ? ".//%s" : "./%s", old);
        break;
    case 5: case 6: {  // a name at, or past, the limit of 255 bytes
        char *last = strrchr(w->path, '/');
        last = last && (size_t)(last - w->path) >= base ? last + 1 : w->path + base;
        size_t count = chance(60) ? 255 : 256;
        memset(last, 'n', count);
        last[count] = 0;
        break;
    }
    case 7: case 8: {  // a whole path at, or past, the limit of 4,096 bytes with its end
        size_t target = chance(60) ? 4095 : chance(50) ? 4096 : 4094, at = base;
        strcpy(old, w->path + base);
        size_t rest = length - base;
        while (at + rest + 2 <= target) { w->path[at++] = '.'; w->path[at++] = '/'; }
        if (at + rest < target) w->path[at++] = '/';
        strcpy(w->path + at, old);
        break;
    }
    default:
        if (chance(30)) w->path[0] = 0; else w->plain = true;
        break;
    }
}

static size_t start_path(struct where *w, unsigned absolute) {
    w->dirfd = AT_FDCWD;
    w->plain = true;
    w->path[0] = 0;
    if (chance(absolute) || !has(CWD)) sprintf(w->path, "%s/", root);
    return strlen(w->path);
}

static void components(struct where *w, unsigned directory, unsigned file) {
    uint64_t depth = rnd(100);
    depth = depth < 52 ? 0 : depth < 86 ? 1 : depth < 97 ? 2 : 3;
    while (depth-- > 0) {
        strcat(w->path, component(86, 5));
        strcat(w->path, "/");
    }
    strcat(w->path, component(directory, file));
}

static void pick_biased(struct where *w, unsigned directory, unsigned file) {
    size_t base = start_path(w, 60);
    int from = -1;
    if (chance(12)) {
        from = pick_slot();
        w->dirfd = slot[from];
        if (chance(85)) { w->path[0] = 0; base = 0; }  // else an absolute path, to which the descriptor says nothing
    }
    components(w, directory, file);
    if (chance(9)) decorate(w, base);
    char text[600];
    shown_text(w->path, text, sizeof text);
    if (from < 0) snprintf(w->shown, sizeof w->shown, "\"%s\"", text);
    else snprintf(w->shown, sizeof w->shown, "#%d:\"%s\"", from, text);
}

void pick(struct where *w) { pick_biased(w, 17, 68); }
void pick_directory(struct where *w) { pick_biased(w, 84, 8); }

void pick_plain(struct where *w) {
    start_path(w, 100);
    components(w, 20, 65);
    char text[600];
    snprintf(w->shown, sizeof w->shown, "\"%s\"", shown_text(w->path, text, sizeof text));
}

void pick_link_text(char *text) {
    switch (rnd(8)) {
    case 0: case 1: strcpy(text, component(50, 40)); break;
    case 2: sprintf(text, "%s/%s", component(90, 5), component(10, 80)); break;
    case 3: sprintf(text, "../%s", component(60, 40)); break;
    case 4: sprintf(text, "%s/%s", root, component(50, 40)); break;
    case 5: sprintf(text, "%s/", component(70, 10)); break;
    case 6: strcpy(text, "."); break;
    default: {  // lengths around those at which a volume may stop keeping the text in its inode, and the longest
        static const int lengths[] = {0, 30, 59, 60, 61, 100, 160, 255, 300, 1000, 4000, 4095, 4096};
        int length = lengths[rnd(has(LONG_LINKS) ? 13 : 9)];
        for (int i = 0; i < length; i++) text[i] = i % 2 ? '/' : '.';
        if (length % 2 == 0 && length > 0) text[length - 1] = 'a';
        text[length] = 0;
    }
    }
}

off_t pick_offset(void) {
    switch (rnd(16)) {
    case 0: case 1: case 2: return 0;
    case 3: return 1;
    case 4: case 5: return (off_t)rnd(100);
    case 6: return (off_t)(rnd(3) + 511);
    case 7: case 8: return (off_t)(rnd(3) + 4095);
    case 9: return (off_t)(4096 * rnd(64));
    case 10: case 11: return (off_t)rnd(65536);
    case 12: case 13: return (off_t)rnd(16384);
    case 14: return (off_t)rnd(1 << 20);
    default:
        if (chance(70)) return (off_t)rnd(200000);
        return chance(50) ? ((off_t)1 << 32) - 2 + (off_t)rnd(4) : ((off_t)1 << 43) - 4098 + (off_t)rnd(4100);
    }
}

size_t pick_length(void) {
    switch (rnd(12)) {
    case 0: return 1;
    case 1: case 2: return rnd(100) + 1;
    case 3: return 512;
    case 4: case 5: return 4096;
    case 6: return 4097;
    case 7: case 8: case 9: return rnd(5000) + 1;
    case 10: return rnd(20000) + 1;
    default: return chance(80) ? rnd(9000) + 1 : rnd(150000) + 1;
    }
}

int pick_slot(void) { return (int)rnd(SLOTS); }

int pick_descriptor(char shown[16]) {
    if (chance(97)) {
        int s = pick_slot();
        for (int i = 0; i < SLOTS && slot[s] < 0 && !chance(7); i++) s = (s + 1) % SLOTS;
        sprintf(shown, "#%d", s);
        return slot[s];
    }
    int bad = chance(50) ? 987 : -1;
    sprintf(shown, "%d", bad);
    return bad;
}

mode_t pick_mode(void) {
    static const mode_t usual[] = {0777, 0777, 0666, 0755, 0644, 0700, 0600, 0775, 0, 0444, 0555, 01777, 02775, 02755, 04755, 06777, 0070, 0007, 0070, 0333};
    mode_t mode = chance(85) ? usual[rnd(20)] : (mode_t)rnd(010000);
    return has(STICKY) ? mode : mode & ~(mode_t)S_ISVTX;
}
