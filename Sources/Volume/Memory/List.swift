/// A growing row of plain values that is emptied by one store: what an attempt collects, and queues that are walked in order.
///
/// Array would do the same, but asks at every append who else holds it, and its `removeAll` costs 70 instructions: here a transaction empties fifteen of
/// them before every attempt.
@safe struct List<Element: BitwiseCopyable>: ~Copyable {
    private var elements: UnsafeMutablePointer<Element>
    private var capacity: Int
    private(set) var count = 0

    init(capacity: Int = 16) {
        unsafe elements = .allocate(capacity: capacity)
        self.capacity = capacity
    }

    deinit { unsafe elements.deallocate() }

    @inline(__always) var isEmpty: Bool { count == 0 }
    @inline(__always) var indices: Range<Int> { unsafe Range(uncheckedBounds: (0, count)) }

    @inline(__always) subscript(position: Int) -> Element {
        get {
            precondition(position >= 0 && position < count)
            return unsafe elements[position]
        }
        set {
            precondition(position >= 0 && position < count)
            unsafe elements[position] = newValue
        }
    }

    @inline(__always) mutating func append(_ element: Element) {
        if count == capacity { grow() }
        unsafe (elements + count).initialize(to: element)
        count &+= 1
    }

    @inline(__always) mutating func removeAll() { count = 0 }

    @inline(__always) func contains(where matches: (Element) -> Bool) -> Bool {
        for position in indices where unsafe matches(elements[position]) { return true }
        return false
    }

    @inline(never) private mutating func grow() {
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: capacity * 2)
        unsafe larger.update(from: elements, count: count)
        unsafe elements.deallocate()
        unsafe elements = larger
        capacity *= 2
    }
}
