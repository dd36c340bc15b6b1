// Which calls the library answers itself.

import CPreload
import CSystem

/// True if the call has been answered and `frame.result` holds the result, a value or a negated errno.
func answer(_ number: SystemCallNumber, _ frame: inout SystemCallFrame) -> Bool {
    Probe.isOn && Probe.answer(number, &frame)
}
