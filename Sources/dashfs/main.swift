print("dashfs")
