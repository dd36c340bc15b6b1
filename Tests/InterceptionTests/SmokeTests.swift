import Testing
import Interception
@Test func smoke() throws {
    print(try SiteTable.forThisMachine(cacheDirectory: "/tmp/dfsi/cache"))
}
