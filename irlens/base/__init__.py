"""What every room stands on: errors, files, options, plugins, progress, parallel work. It knows no other room."""
