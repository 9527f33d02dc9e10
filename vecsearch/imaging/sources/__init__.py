"""Where pictures come from: folders watched, files behind URLs, in archives and in videos."""
