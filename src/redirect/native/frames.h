/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NMI_FRAMES_H
#define NMI_FRAMES_H

#include "fault.h"

/*
 * A descriptor that reads and writes whole Ethernet frames with IPv4 in them on one interface; a read
 * fails with EAGAIN when none has come for `patience_s`. -1 with a fault.
 */
int open_frames(const char *interface, int patience_s, struct fault *fault);

#endif
