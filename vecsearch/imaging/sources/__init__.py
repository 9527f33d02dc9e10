"""Where pictures come from: folders watched, files behind URLs and in archives."""
