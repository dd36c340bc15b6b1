// CSystem: what Swift cannot express. Static-inline shims and system headers; no logic.
// A floor that needs its own shims adds a header beside this one and includes it here.
#ifndef CSYSTEM_H
#define CSYSTEM_H

#include "csystem_confine.h"
#include "csystem_count.h"
#include "csystem_device.h"
#include "csystem_intercept.h"
#include "csystem_memory.h"
#include "csystem_syscall.h"
#include "csystem_tools.h"
#include "csystem_vfio.h"
#include "csystem_capi.h"

#endif
